package e2e

import (
	"context"
	"encoding/json"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// A program has a projection of a node's log. The commands go to the node, which does not know it, and the program obeys.
func TestProjectionsCommand(t *testing.T) {
	t.Parallel()
	dsn := servers.MySQL(t).DSN
	n := startNode(t, "--state-mysql-dsn", dsn)
	caller := direct(n.url)
	for i := range 20 {
		events := make([]object, 100)
		for j := range events {
			events[j] = object{"type": "added", "data": j}
		}
		caller.must(t, "events/append", object{"streams": []object{{"category": "account", "id": strconv.Itoa(i), "events": events}}})
	}
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: dsn})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, driver.Close()) })
	log, err := mysqlevents.Open(driver, eventstore.Config{})
	require.NoError(t, err)
	var slow atomic.Bool
	proceed := make(chan struct{}, 1000)
	set, err := projection.Open(t.Context(), log, projection.Config{Poll: 20 * time.Millisecond, Definitions: []projection.Definition{{
		Name: "counts", Category: "account", Batch: 50,
		Tables: []projection.Table{{Name: "counts", Columns: "(id VARCHAR(64) NOT NULL PRIMARY KEY, n BIGINT NOT NULL)"}},
		Apply: func(ctx context.Context, b projection.Batch) error {
			if slow.Load() && b.Version.Number == 2 {
				select {
				case <-proceed:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			for _, e := range b.Events {
				insert := strings.ReplaceAll("INSERT INTO {t} (id, n) VALUES (?, 1) ON DUPLICATE KEY UPDATE n = n + 1", "{t}", b.Version.Table("counts"))
				if _, err := b.Tx.ExecContext(ctx, insert, e.Stream.ID); err != nil {
					return err
				}
			}
			return nil
		},
	}}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, set.Close(context.WithoutCancel(t.Context()))) })
	_, err = set.Await(t.Context(), "counts", 2000)
	require.NoError(t, err)

	list := func(name string) []object {
		out, stderr, code := run(t, "projections", "list", name, "-o", "json", "--node", n.url)
		require.Equal(t, 0, code, stderr)
		var answer struct{ Versions []object }
		require.NoError(t, json.Unmarshal([]byte(out), &answer))
		return answer.Versions
	}
	command := func(args ...string) (stdout, stderr string, code int) {
		return run(t, append(append([]string{"projections"}, args...), "--node", n.url)...)
	}
	out, _, code := command("list")
	require.Equal(t, 0, code)
	require.Regexp(t, `counts +1 +live +2000 +0 +- +0 +1`, out)
	out, _, code = command("pause", "counts")
	require.Equal(t, 0, code)
	require.Regexp(t, `counts +1 +paused .* live`, out)
	_, _, code = command("resume", "counts")
	require.Equal(t, 0, code)
	_, stderr, code := command("swap", "counts", "7")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "there is no version 7")
	_, stderr, code = command("pause", "other")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "no process has defined a projection of that name")

	// A rebuild on a terminal draws a bar until it is live.
	slow.Store(true)
	person, program := openTerminal(t, 24, 120)
	seen := new(lockedBuffer)
	go func() {
		for buffer := make([]byte, 4096); ; {
			n, err := person.Read(buffer)
			_, _ = seen.Write(buffer[:n])
			if err != nil {
				return
			}
		}
	}()
	cmd := exec.CommandContext(t.Context(), binary, "projections", "rebuild", "counts", "--poll", "20ms", "--node", n.url)
	cmd.Env = cleanEnvironment()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	for range 8 {
		proceed <- struct{}{}
	}
	require.Eventually(t, func() bool { return strings.Contains(seen.String(), "###") && strings.Contains(seen.String(), " left") }, patience, 10*time.Millisecond)
	require.Equal(t, "building", list("counts")[1]["state"])
	slow.Store(false)
	proceed <- struct{}{}
	require.NoError(t, cmd.Wait())
	require.Contains(t, seen.String(), "/2000 version 2: ")
	versions := list("counts")
	require.Equal(t, "standby", versions[0]["state"])
	require.Equal(t, "live", versions[1]["state"])
	require.EqualValues(t, 2000, versions[1]["position"])

	_, _, code = command("swap", "counts", "1")
	require.Equal(t, 0, code)
	_, stderr, code = command("drop", "counts", "1", "--yes")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "is the live one")
	_, stderr, code = command("drop", "counts", "2")
	require.Equal(t, 2, code, "nobody is here to ask")
	require.Contains(t, stderr, "--yes")
	_, _, code = command("drop", "counts", "2", "--yes")
	require.Equal(t, 0, code)
	require.Eventually(t, func() bool { return len(list("counts")) == 1 }, patience, 20*time.Millisecond)
}
