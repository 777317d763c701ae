package e2e

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

const masterKey = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="

// The log of events by command: on a node by itself, and on two nodes that share a database and a broker.
func TestCommandsOfEvents(t *testing.T) {
	t.Run("embedded", func(t *testing.T) {
		folder := filepath.Join(t.TempDir(), "data")
		n := startNode(t, "--data-dir", folder, "--events-master-key-file", write(t, "key", masterKey+"\n"))
		eventsStory(t, n, n)

		require.Equal(t, 0, n.stop(t)) // what was appended is there after a restart, with the same key
		n = startNode(t, "--data-dir", folder, "--events-master-key-file", write(t, "key", masterKey+"\n"))
		require.Contains(t, bannouAt(t, n, "events", "read", "account/b", "-o", "json"), `"by":"Bob"`)
		require.Equal(t, 0, n.stop(t))
		n = startNode(t, "--data-dir", folder)
		_, errs, code := run(t, "events", "read", "account/b", "--node", n.url)
		require.Equal(t, 1, code)
		require.Contains(t, errs, "--events-master-key-file")
	})
	t.Run("two nodes", func(t *testing.T) {
		args := []string{"--messaging-backend", "redis", "--state-redis-url", servers.Redis(t).URL, "--state-mysql-dsn", servers.MySQL(t).DSN,
			"--messaging-exchange", topic("events"), "--events-master-key", masterKey}
		eventsStory(t, startNode(t, args...), startNode(t, args...))
	})
}

// bannouAt runs a command that has to succeed.
func bannouAt(t *testing.T, n *node, args ...string) string {
	t.Helper()
	out, errs, code := run(t, append(args, "--node", n.url)...)
	require.Equal(t, 0, code, "%v: %s", args, errs)
	return out
}

// eventsStory appends at one node and looks on at another.
func eventsStory(t *testing.T, one, other *node) {
	bannou := func(args ...string) string { t.Helper(); return bannouAt(t, one, args...) }
	refused := func(args ...string) string {
		t.Helper()
		_, errs, code := run(t, append(args, "--node", one.url)...)
		require.Equal(t, 1, code)
		return errs
	}
	next := tailEvents(t, other, "account", "--from", "0")
	require.Contains(t, bannou("events", "append", "account/a", "opened", `{"by":"Ada","amount":9007199254740993}`, "--expected", "none", "--personal", "/by", "--subject", "ada"),
		"version 1 of account/a, position 1")
	require.Equal(t, `a 1 {"by":"Ada","amount":9007199254740993}`, next())
	for _, says := range []string{"account/a", "version 1", "conflict"} {
		require.Contains(t, refused("events", "append", "account/a", "opened", "1", "--expected", "none"), says)
	}
	const id = "018f0000-0000-7000-8000-000000000001"
	bannou("events", "append", "account/a", "deposited", `{"amount":1}`, "--expected", "1", "--id", id)
	require.Contains(t, bannou("events", "append", "account/a", "deposited", `{"amount":1}`, "--expected", "1", "--id", id), "it was there already")
	bannou("events", "append", "account/b", "opened", `{"by":"Bob"}`, "--personal", "/by")
	require.Equal(t, `a 2 {"amount":1}`, next())
	require.Equal(t, `b 1 {"by":"Bob"}`, next())

	lines := strings.Split(strings.TrimSpace(bannou("events", "read", "account", "-o", "json")), "\n")
	require.Len(t, lines, 3)
	require.Contains(t, lines[0], `"data":{"by":"Ada","amount":9007199254740993}`)
	require.Regexp(t, `(?m)^a +2\nb +1$`, bannou("events", "streams", "account"))
	require.Contains(t, bannou("events", "at", "account/a", "1"), "version 1, since ")
	require.Contains(t, bannou("events", "at", "account/a", "24h"), "did not exist then")
	diff := bannou("events", "diff", "account/a", "1")
	require.Contains(t, diff, "version 1 to 2")
	require.NotContains(t, diff, "opened")

	require.Contains(t, bannou("events", "erase", "ada", "--yes"), "erased")
	require.Contains(t, bannou("events", "read", "account/a"), `{"by":null,"amount":9007199254740993} (erased: /by)`)
	require.Contains(t, refused("events", "erase", "ada", "--yes"), "no event")
	require.Contains(t, refused("events", "archive", "account/a"), "not closed")
	require.Contains(t, bannou("events", "close", "account/a", "--yes", "--expected", "2"), "closed: version 3")
	require.Contains(t, refused("events", "append", "account/a", "deposited", "1"), "closed")
	require.Contains(t, bannou("events", "archive", "account/a"), "2 events")
	require.Contains(t, bannou("events", "read", "account/a"), `{"by":null,"amount":9007199254740993} (erased: /by)`)
	require.Contains(t, bannou("events", "rewrap"), "0 keys")
	require.Contains(t, bannou("events", "parked", "list", "none"), "STREAM")
	require.Contains(t, refused("events", "parked", "release", "none", "account/a"), "not parked")
}

// tailEvents runs `bannou events tail`, and gives stream, version and data of one event after the other.
func tailEvents(t *testing.T, n *node, args ...string) (next func() string) {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"events", "tail", "-o", "json", "--node", n.url}, args...)...)
	cmd.Env = cleanEnvironment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	lines := bufio.NewScanner(out)
	return func() string {
		require.True(t, lines.Scan(), "the stream ended")
		var e struct {
			Stream  string
			Version json.Number
			Data    json.RawMessage
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &e))
		return e.Stream + " " + e.Version.String() + " " + string(e.Data)
	}
}
