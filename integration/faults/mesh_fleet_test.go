package faults_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9/logging"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/faults"
	"github.com/bannou-mesh/bannou/integration/link"
	"github.com/bannou-mesh/bannou/integration/servers"
)

// A fleet is the instances of a mesh and the servers that they share. One serves many faults, one after another.
type fleet struct {
	servers  link.Servers
	registry *servers.Server
	bus      *servers.Server
	busName  string

	ledger    atomic.Pointer[faults.MeshLedger] // of the fault that is being done
	instances map[string]*instance
	started   int // instances so far
}

// newFleet has servers, and no instances yet.
func newFleet(t *testing.T, busName string, bus *servers.Server, busURL string) *fleet {
	logging.Disable() // the Redis client's own, of connections; what failed says so itself
	registry := servers.NewRedis(t, servers.RedisOptions{})
	f := &fleet{servers: link.Servers{Registry: registry.URL, Bus: busURL}, registry: registry.Server, bus: bus, busName: busName, instances: map[string]*instance{}}
	t.Cleanup(f.close)
	return f
}

// bareFleet is one on Redis.
func bareFleet(t *testing.T) *fleet {
	bus := servers.NewRedis(t, servers.RedisOptions{})
	return newFleet(t, "redis", bus.Server, bus.URL)
}

// manned starts three instances of alpha and two of beta.
func (f *fleet) manned(t *testing.T) *fleet {
	ctx := within(t, patience)
	for _, appID := range []string{"alpha", "alpha", "alpha", "beta", "beta"} {
		_, err := f.start(ctx, appID, "127.0.0.1:0")
		require.NoError(t, err)
	}
	return f
}

// close ends all instances.
func (f *fleet) close() {
	for _, in := range f.instances {
		_ = in.kill()
	}
}

// start starts another instance, and returns when it is registered.
func (f *fleet) start(ctx context.Context, appID, listen string) (*instance, error) {
	return f.launch(ctx, description{AppID: appID, Listen: listen, Servers: f.servers}, 0)
}

// launch starts an instance, with the flags of clone(2) that set it apart.
func (f *fleet) launch(ctx context.Context, d description, apart uintptr) (*instance, error) {
	f.started++
	d.InstanceID = fmt.Sprintf("%s-%d", d.AppID, f.started)
	in, err := startInstance(ctx, d, apart, func(number int) {
		if l := f.ledger.Load(); l != nil {
			l.Handled(number)
		}
	})
	if err != nil {
		return nil, err
	}
	in.number = f.started
	f.instances[d.InstanceID] = in
	return in, nil
}

// replace starts an instance in the place of one that has ended.
func (f *fleet) replace(ctx context.Context, gone *instance, listen string) (*instance, error) {
	delete(f.instances, gone.InstanceID)
	return f.start(ctx, gone.AppID, listen)
}

// of returns the instances of an app-id, those first that have been there for the longest time.
func (f *fleet) of(appID string) []*instance {
	var all []*instance
	for _, in := range f.instances {
		if in.AppID == appID {
			all = append(all, in)
		}
	}
	slices.SortFunc(all, func(a, b *instance) int { return a.number - b.number })
	return all
}

// An instance is a running process.
type instance struct {
	description
	number  int
	address string
	cmd     *exec.Cmd
	in      io.WriteCloser
	log     *tail

	asking  sync.Mutex
	answers chan string
	ended   chan struct{} // closed when it has ended, and all it said has been read
}

// startInstance returns when the instance serves and is registered. handled is called with each Once call that it says it has got.
func startInstance(ctx context.Context, d description, apart uintptr, handled func(number int)) (*instance, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	described, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	in := &instance{description: d, log: new(tail), answers: make(chan string, 1), ended: make(chan struct{})}
	in.cmd = exec.Command(self)
	in.cmd.Env = append(os.Environ(), instanceVariable+"="+string(described))
	in.cmd.Stderr = in.log
	in.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: apart, Pdeathsig: syscall.SIGKILL}
	if in.in, err = in.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := in.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := in.cmd.Start(); err != nil {
		return nil, err
	}
	go in.listen(out, handled)
	if in.address, err = in.answer(ctx, "at "); err != nil {
		return nil, errors.Join(fmt.Errorf("instance %s did not start: %w\n%s", d.InstanceID, err, in.log), in.kill())
	}
	return in, nil
}

// listen reads what the instance says until it ends.
func (in *instance) listen(out io.Reader, handled func(number int)) {
	defer close(in.ended)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var number int
		if _, err := fmt.Sscanf(lines.Text(), "handled %d", &number); err == nil {
			handled(number)
			continue
		}
		in.answers <- lines.Text()
	}
	_ = in.cmd.Wait() // how it ended is known to who ended it
}

// ask says something to the instance and returns what follows the first words of its answer.
func (in *instance) ask(ctx context.Context, question, prefix string) (string, error) {
	in.asking.Lock()
	defer in.asking.Unlock()
	if _, err := fmt.Fprintln(in.in, question); err != nil {
		return "", err
	}
	return in.answer(ctx, prefix)
}

func (in *instance) answer(ctx context.Context, prefix string) (string, error) {
	select {
	case said := <-in.answers:
		rest, ok := strings.CutPrefix(said, prefix)
		if !ok {
			return "", fmt.Errorf("instance %s said %q, not %q", in.InstanceID, said, prefix)
		}
		return rest, nil
	case <-in.ended:
		return "", fmt.Errorf("instance %s has ended", in.InstanceID)
	case <-ctx.Done():
		return "", fmt.Errorf("instance %s says nothing: %w", in.InstanceID, ctx.Err())
	}
}

func (in *instance) behave(ctx context.Context, manner string) error {
	_, err := in.ask(ctx, "behave "+manner, "behaves")
	return err
}

// left returns how many connections are open at the instance, and how many goroutines serve them.
func (in *instance) left(ctx context.Context) (connections, goroutines int, err error) {
	said, err := in.ask(ctx, "left", "left ")
	if err == nil {
		_, err = fmt.Sscan(said, &connections, &goroutines)
	}
	return connections, goroutines, err
}

// sync returns when everything that the instance has handled has been entered.
func (in *instance) sync(ctx context.Context) error {
	_, err := in.ask(ctx, "sync", "synced")
	return err
}

func (in *instance) pause() error  { return in.cmd.Process.Signal(syscall.SIGSTOP) }
func (in *instance) resume() error { return in.cmd.Process.Signal(syscall.SIGCONT) }

// kill ends the process with SIGKILL, and waits for its end.
func (in *instance) kill() error {
	err := in.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-in.ended
	return err
}

// stop ends the process as an operator would.
func (in *instance) stop(ctx context.Context) error {
	if err := in.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-in.ended:
	case <-ctx.Done():
		return fmt.Errorf("instance %s does not end: %w", in.InstanceID, ctx.Err())
	}
	if code := in.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("instance %s ended with %d:\n%s", in.InstanceID, code, in.log)
	}
	return nil
}

// quiet logs nothing.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
