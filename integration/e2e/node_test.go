package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// patience is how long anything may take that has to happen in the end, on a machine that is busy with other things.
const patience = time.Minute

// binary is the program under test, and unruly the same with a bus on which messages come twice, late, and in another order than they were sent:
// both built once, or the one that BANNOU_TEST_BINARY names.
var binary, unruly string

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "bannou-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if binary = os.Getenv("BANNOU_TEST_BINARY"); binary != "" {
		unruly = binary
	} else {
		binary, unruly = filepath.Join(folder, "bannou"), filepath.Join(folder, "unruly")
		build := exec.Command("go", "build", "-o", folder, "github.com/bannou-mesh/bannou/cmd/bannou", "github.com/bannou-mesh/bannou/cmd/internal/unruly")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			os.Exit(1)
		}
	}
	// Tests that are parallel wait most of their time: for claims of killed nodes, and for brokers to come back.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := servers.Main(m)
	os.RemoveAll(folder)
	os.Exit(code)
}

// A node is a running process of the binary.
type node struct {
	url    string
	cmd    *exec.Cmd
	exited chan struct{}
	log    *lockedBuffer
}

// startNode runs `bannou serve` with these arguments on a free port and returns once it is ready. Its bus is unruly: what these tests say holds
// there too.
func startNode(t *testing.T, args ...string) *node {
	t.Helper()
	n := launch(t, freeAddress(t), args...)
	n.waitReady(t)
	return n
}

// startPlain is startNode without the unruly bus, for tests that count deliveries, or look at their order.
func startPlain(t *testing.T, args ...string) *node {
	t.Helper()
	n := launchAs(t, binary, freeAddress(t), args...)
	n.waitReady(t)
	return n
}

// launch starts a node without waiting for it.
func launch(t *testing.T, address string, args ...string) *node {
	t.Helper()
	return launchAs(t, unruly, address, args...)
}

// launchAs is launch of another program with the same command line.
func launchAs(t *testing.T, program, address string, args ...string) *node {
	t.Helper()
	n := &node{url: "http://" + address, exited: make(chan struct{}), log: new(lockedBuffer)}
	n.cmd = exec.Command(program, append([]string{"serve", "--listen", address}, args...)...)
	n.cmd.Dir = t.TempDir()
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	n.cmd.Env = cleanEnvironment()
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, n.cmd.Start())
	go func() {
		_ = n.cmd.Wait() // the exit code is read from ProcessState
		close(n.exited)
	}()
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", n.url, n.log)
		}
	})
	return n
}

func (n *node) waitReady(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !n.ready() {
		select {
		case <-n.exited:
			t.Fatalf("the node ended while starting:\n%s", n.log)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("the node was not ready in %s:\n%s", patience, n.log)
		}
	}
}

func (n *node) ready() bool {
	res, err := http.Get(n.url + "/readyz")
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// kill ends the process as a power cut would.
func (n *node) kill() {
	_ = n.cmd.Process.Kill()
	<-n.exited
}

// stop ends the process as an operator would, and returns its exit code.
func (n *node) stop(t *testing.T) int {
	t.Helper()
	require.NoError(t, n.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-n.exited:
	case <-time.After(patience):
		t.Fatalf("the node did not end in %s:\n%s", patience, n.log)
	}
	return n.cmd.ProcessState.ExitCode()
}

// run executes a command of the binary to its end.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = cleanEnvironment()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code tells
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// cleanEnvironment keeps a developer's own settings out of the tests.
func cleanEnvironment() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "BANNOU_") {
			env = append(env, e)
		}
	}
	return env
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// object is a JSON object as these tests write and read it.
type object = map[string]any

// post sends a JSON body and decodes the JSON answer.
func post(t testing.TB, url string, body any) (status int, answer object) {
	t.Helper()
	return postAs(t, http.DefaultClient, url, body)
}

func postAs(t testing.TB, client *http.Client, url string, body any) (status int, answer object) {
	t.Helper()
	encoded, ok := body.(string)
	if !ok {
		b, err := json.Marshal(body)
		require.NoError(t, err)
		encoded = string(b)
	}
	res, err := client.Post(url, "application/json", strings.NewReader(encoded))
	require.NoError(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if len(raw) > 0 {
		require.NoError(t, decoder.Decode(&answer), "%s answered %d with %q", url, res.StatusCode, raw)
	}
	return res.StatusCode, answer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
