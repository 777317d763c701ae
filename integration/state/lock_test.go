package state_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
)

// The environment of a holder that runs as a process of its own, this binary once more.
const (
	holderEngine  = "BANNOU_STATE_HOLDER"
	holderAddress = "BANNOU_STATE_HOLDER_ADDRESS"
)

const (
	holderTTL   = 5 * time.Second
	holderSlack = 10 * time.Second
)

// A process that holds a lock is stopped (SIGSTOP) beyond its time. Another gets the lock when that time is over and writes; when the first
// goes on, believing that it holds the lock, its write fails and it learns that the lock is lost.
func TestLockOfAStoppedProcess(t *testing.T) {
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		stopHolder(t, "redis", servers.Redis(t).URL)
	})
	t.Run("mysql", func(t *testing.T) {
		t.Parallel()
		stopHolder(t, "mysql", servers.MySQL(t).DSN)
	})
}

func stopHolder(t *testing.T, engine, address string) {
	d, err := holderDriver(engine, address)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	store, lock, err := openLocked(t.Context(), d)
	require.NoError(t, err)

	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), holderEngine+"="+engine, holderAddress+"="+address)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	require.NoError(t, err)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	said := bufio.NewReader(out)
	var token int64
	_, err = fmt.Fscanf(said, "held %d\n", &token)
	require.NoError(t, err)
	_, err = lock.TryAcquire(t.Context())
	require.ErrorIs(t, err, state.ErrLocked)

	require.NoError(t, child.Process.Signal(syscall.SIGSTOP))
	stopped := time.Now()
	h, err := lock.Acquire(t.Context())
	require.NoError(t, err)
	require.Less(t, time.Since(stopped), holderTTL+holderSlack, "the wait is over with the stopped holder's time")
	require.Greater(t, h.Token(), token)
	_, err = store.TransactHeld(t.Context(), h, []state.Op[string]{{Key: "{job}result", Value: "the second holder's"}})
	require.NoError(t, err)

	_, err = fmt.Fprintln(in, "write")
	require.NoError(t, err)
	require.NoError(t, child.Process.Signal(syscall.SIGCONT))
	line, err := said.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "write: lost, context: lost", strings.TrimSpace(line))
	require.NoError(t, child.Wait())
	value, err := store.Get(t.Context(), "{job}result")
	require.NoError(t, err)
	require.Equal(t, "the second holder's", value)
	require.NoError(t, h.Release(t.Context()))
}

func holderDriver(engine, address string) (state.Driver, error) {
	if engine == "redis" {
		return redisstate.New(redisstate.Config{URLs: []string{address}})
	}
	return mysqlstate.New(mysqlstate.Config{DSN: address})
}

func openLocked(ctx context.Context, d state.Driver) (*state.Store[string], *state.Lock, error) {
	f, err := state.NewFactory([]state.StoreConfig{{Name: "jobs", Backend: d.Backend()}}, []state.Driver{d}, state.Options{})
	if err != nil {
		return nil, nil, err
	}
	store, err := state.Open[string](ctx, f, "jobs")
	if err != nil {
		return nil, nil, err
	}
	lock, err := state.OpenLock(ctx, f, "jobs", "{job}", state.LockOptions{TTL: holderTTL})
	return store, lock, err
}

// hold is the holder's process: it takes the lock, and writes when it is told to.
func hold(engine, address string) int {
	err := func() error {
		ctx := context.Background()
		d, err := holderDriver(engine, address)
		if err != nil {
			return err
		}
		store, lock, err := openLocked(ctx, d)
		if err != nil {
			return err
		}
		h, err := lock.Acquire(ctx)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(os.Stdout, "held %d\n", h.Token())
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			return err
		}
		_, wrote := store.TransactHeld(ctx, h, []state.Op[string]{{Key: "{job}result", Value: "the first holder's"}})
		<-h.Context().Done()
		_, _ = fmt.Fprintf(os.Stdout, "write: %s, context: %s\n", verdict(wrote), verdict(context.Cause(h.Context())))
		return d.Close()
	}()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "holder:", err)
		return 1
	}
	return 0
}

func verdict(err error) string {
	switch {
	case err == nil:
		return "made"
	case errors.Is(err, state.ErrLockLost):
		return "lost"
	default:
		return err.Error()
	}
}
