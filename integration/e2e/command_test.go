package e2e

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A mistake in the configuration is one line that says what and what to do, and exit code 2.
func TestConfigurationMistakes(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("not a database, and not a folder"), 0o600))
	broken := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(broken, "state.db"), []byte(strings.Repeat("not a database ", 100)), 0o600))

	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"unknown service", []string{"--services", "billing"}, []string{`unknown service "billing"`, "choose from messaging, state, mesh, events, accounts, auth, permissions"}},
		{"port in use", []string{"--listen", busy.Addr().String()}, []string{"the port is in use", "--listen"}},
		{"data folder is a file", []string{"--listen", "127.0.0.1:0", "--data-dir", file}, []string{file}},
		{"data folder below a file", []string{"--listen", "127.0.0.1:0", "--data-dir", filepath.Join(file, "below")}, []string{file}},
		{"no database", []string{"--listen", "127.0.0.1:0", "--data-dir", broken}, []string{filepath.Join(broken, "state.db")}},
		{"unknown flag", []string{"--serv", "state"}, []string{"--serv"}},
		{"beyond loopback", []string{"--listen", "0.0.0.0:0"}, []string{"beyond loopback", "--mesh-token-file", "--mesh-tls-cert-file", "--insecure"}},
		{"a token that is too short", []string{"--listen", "0.0.0.0:0", "--mesh-token", "secret-word"}, []string{"--mesh-token", "16"}},
		{"no file with the token", []string{"--listen", "0.0.0.0:0", "--mesh-token-file", filepath.Join(file, "token")}, []string{"the mesh's token", file}},
		{"certificates that are none", []string{"--listen", "0.0.0.0:0", "--mesh-tls-cert-file", file, "--mesh-tls-key-file", file, "--mesh-tls-ca-file", file}, []string{file}},
		{"a broker's address that is none", []string{"--listen", "127.0.0.1:0", "--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", "amqp://user:secret-word@host:port/"}, []string{"rabbitmq"}},
		{"a DSN that is none", []string{"--listen", "127.0.0.1:0", "--state-mysql-dsn", "root:secret-word@nowhere"}, []string{"mysql"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout, stderr, code := run(t, append([]string{"serve"}, c.args...)...)
			require.Equal(t, 2, code, "%s%s", stdout, stderr)
			for _, want := range c.want {
				require.Contains(t, stderr, want)
			}
			require.NotContains(t, stderr, "secret-word")
			line := strings.TrimSuffix(lastLine(stderr), "\n")
			require.True(t, strings.HasPrefix(line, "bannou: "), "%q", stderr)
			require.NotContains(t, stderr, "goroutine", "not a stack")
		})
	}
}

func lastLine(s string) string {
	lines := strings.SplitAfter(strings.TrimSuffix(s, "\n"), "\n")
	return lines[len(lines)-1]
}

// A node that is told to end leaves the mesh, answers what is under way, and ends with 0.
func TestSIGTERMDrains(t *testing.T) {
	n := startNode(t, "--drain-timeout", "5m") // longer than anybody waits for it here
	tail := make(chan struct{})
	go func() { // a stream that never ends by itself must not hold the node up
		defer close(tail)
		res, err := http.Post(n.url+"/messaging/tail", "application/json", strings.NewReader(`{"topic":"#"}`))
		if err == nil {
			defer res.Body.Close()
			for buffer := make([]byte, 1024); err == nil; {
				_, err = res.Body.Read(buffer)
			}
		}
	}()
	require.Equal(t, 0, n.stop(t), "%s", n.log)
	<-tail
	require.Contains(t, n.log.String(), "draining")
}

// A second signal ends a node that takes too long.
func TestSecondSignalStopsAtOnce(t *testing.T) {
	release := make(chan struct{})
	called := make(chan struct{}, 10)
	slow, calls := receiver(t, func(int64) int {
		called <- struct{}{}
		<-release
		return http.StatusOK
	})
	defer func() { close(release); <-calls }()

	n := startNode(t, "--drain-timeout", "5m")
	s := direct(n.url)
	s.must(t, "messaging/subscribe", object{"topic": "slow.work", "callbackUrl": slow})
	s.must(t, "messaging/publish", object{"topic": "slow.work", "payload": object{}})
	<-called
	require.NoError(t, n.cmd.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool { return strings.Contains(n.log.String(), "draining") }, patience, time.Millisecond)
	// Signals that come together are one request, so the second comes again until it counts.
	require.Eventually(t, func() bool {
		select {
		case <-n.exited:
			return true
		default:
			_ = n.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
			return false
		}
	}, patience, 50*time.Millisecond, "the second signal did not end the node")
	require.Equal(t, 1, n.cmd.ProcessState.ExitCode())
}

// A node starts without its servers, says what it waits for, and still answers for what does not need them.
func TestNodeStartsWithoutItsServers(t *testing.T) {
	nobody := freeAddress(t)
	address := freeAddress(t)
	n := launch(t, address, "--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", "amqp://user:secret-word@"+nobody,
		"--state-redis-url", "redis://:secret-word@"+nobody, "--state-mysql-dsn", "user:secret-word@tcp("+nobody+")/bannou")
	require.Eventually(t, func() bool {
		res, err := http.Get(n.url + "/healthz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	}, patience, 5*time.Millisecond)

	res, err := http.Get(n.url + "/readyz")
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	var readiness struct {
		Dependencies []struct{ Name, Status, Error string }
	}
	require.NoError(t, json.NewDecoder(res.Body).Decode(&readiness))
	for _, d := range readiness.Dependencies {
		require.Equal(t, "notReady", d.Status, d.Name)
		require.NotEmpty(t, d.Error, d.Name)
		require.NotContains(t, d.Error, "secret-word")
	}

	for _, store := range []string{"auth", "accounts"} {
		status, answer := post(t, n.url+"/state/get", object{"storeName": store, "key": "k"})
		require.Equal(t, http.StatusServiceUnavailable, status, "%v", answer)
		require.Equal(t, "unavailable", answer["code"])
		require.NotContains(t, answer["detail"], "secret-word")
	}
	status, answer := post(t, n.url+"/messaging/publish", object{"topic": "a.b", "payload": object{}})
	require.Equal(t, http.StatusServiceUnavailable, status, "%v", answer)
	require.NoError(t, n.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-n.exited:
	case <-time.After(patience):
		t.Fatalf("the node did not end in %s:\n%s", patience, n.log)
	}
	require.NotContains(t, n.log.String(), "secret-word")
}

func TestCommandLine(t *testing.T) {
	n := startNode(t)
	bannou := func(args ...string) (string, string, int) {
		return run(t, append(args, "--node", n.url)...)
	}

	out, errs, code := bannou("state", "save", "accounts", "k", `{"n":1.50}`, "-o", "json")
	require.Equal(t, 0, code, errs)
	var saved struct{ ETag string }
	require.NoError(t, json.Unmarshal([]byte(out), &saved))
	require.NotEmpty(t, saved.ETag)
	out, _, _ = bannou("state", "get", "accounts", "k", "-o", "json")
	require.Contains(t, out, "1.50", "numbers survive to the digit")
	_, errs, code = bannou("state", "save", "accounts", "k", "2", "--etag", "old")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "conflict")
	_, errs, code = bannou("state", "save", "accounts", "k", "{")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "the value is not JSON")
	_, errs, code = bannou("state", "query", "auth", "{}")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "memory")
	_, errs, code = bannou("state", "save", "accounts", "k", "2", "--ttl", "0")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "--ttl=0: it has to be a second or more")
	_, errs, code = bannou("publish", "a.b", "{}", "--expiration", "1us")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "--expiration=1µs: it has to be a millisecond or more")
	_, errs, code = bannou("dead-letters", "replay", "nosuchid")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "1 of the ids given name no dead letter")
	out, _, code = bannou("state", "delete", "accounts", "k")
	require.Equal(t, 0, code)
	require.Equal(t, "deleted\n", out)

	out, errs, code = run(t, "version")
	require.Equal(t, 0, code, errs)
	require.Contains(t, out, "bannou ")
	_, errs, code = run(t, "topics", "--node", "http://"+freeAddress(t))
	require.Equal(t, 1, code)
	require.Contains(t, errs, "no node answers")
	_, errs, code = run(t, "nonsense")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "nonsense")
}
