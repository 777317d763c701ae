package readme

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// TestAddingAService does what docs/adding-a-service.md says, in a copy of the repository: it has the command write a service, builds it, runs
// its tests, and starts it as a process of its own beside a node, on real servers. Somebody who listens sees its event, and the node calls it.
func TestAddingAService(t *testing.T) {
	folder := shared(t)
	in := func(module string, command ...string) string {
		t.Helper()
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Dir = filepath.Join(folder, module)
		cmd.Env = append(environment(), "CGO_ENABLED=0")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%v: %s", command, out)
		return string(out)
	}
	bannou := filepath.Join(folder, "bin", "bannou")
	in("", "make", "build")
	planned := in("", bannou, "new", "service", "leaderboard", "--dry-run")
	require.NoDirExists(t, filepath.Join(folder, "services", "leaderboard"))
	for line := range strings.Lines(planned) {
		require.True(t, strings.HasPrefix(line, "would "), line)
	}
	printed := in("", bannou, "new", "service", "leaderboard")
	require.Contains(t, printed, "changed go.work")
	in("services/leaderboard", "go", "test", "./...")
	program := filepath.Join(folder, "bin", "leaderboard")
	in("services/leaderboard", "env", "GOWORK=off", "go", "build", "-o", program, "./cmd/leaderboard")

	on := []string{"--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", servers.RabbitMQ(t).URL,
		"--state-redis-url", servers.Redis(t).URL, "--state-mysql-dsn", servers.MySQL(t).DSN}
	node := process(t, append([]string{bannou, "serve"}, on...)...)
	own := process(t, append([]string{program}, on...)...)
	res, err := http.Get(own + "/openapi.yaml") // it is refused where documents do not go together
	require.NoError(t, err)
	document, err := io.ReadAll(res.Body)
	res.Body.Close()
	require.NoError(t, err)
	require.Contains(t, string(document), "/leaderboard/get")

	tail := exec.Command(bannou, "tail", "leaderboard.changed", "--node", node)
	tail.Env = environment()
	printing, err := tail.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, tail.Start())
	t.Cleanup(func() { _ = tail.Process.Kill(); _ = tail.Wait() })
	seen := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(printing).ReadString('\n') // what it is tells
		seen <- line
	}()
	total := 0
	for told := false; !told; { // the tail may begin after the first of them
		in("", bannou, "publish", "leaderboard.reported", `{"key": "ada", "points": 3}`, "--node", node)
		total += 3
		select {
		case line := <-seen:
			require.Regexp(t, `^leaderboard\.changed \{.*"key":"ada","total":\d+\}`, line)
			told = true
		case <-time.After(time.Second):
			require.Less(t, total, 100, "its event is seen")
		}
	}
	require.Eventually(t, func() bool {
		var got struct{ Total int }
		require.NoError(t, json.Unmarshal([]byte(in("", bannou, "invoke", "leaderboard", "leaderboard/get", `{"key": "ada"}`, "--node", node)), &got))
		return got.Total == total
	}, time.Minute, 50*time.Millisecond, "the node calls it by its name, and every event was added")
}

// process runs a node until the test ends, and gives its address.
func process(t *testing.T, command ...string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	cmd := exec.Command(command[0], append(command[1:], "--listen", address)...)
	cmd.Dir, cmd.Env = t.TempDir(), environment()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of %s:\n%s", command[0], &log)
		}
	})
	require.Eventually(t, func() bool {
		res, err := http.Get("http://" + address + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}, time.Minute, 20*time.Millisecond, "%s is ready", command[0])
	return "http://" + address
}
