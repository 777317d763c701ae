package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// printed is a block of docs/state.md about the migration of stores.
func printed(t *testing.T, what string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "state.md"))
	require.NoError(t, err)
	found := regexp.MustCompile("(?s)<!-- migration: " + regexp.QuoteMeta(what) + " -->\n```[a-z]+\n(.*?)```").FindSubmatch(page)
	require.NotNil(t, found, "docs/state.md has no block %q", what)
	return string(found[1])
}

// A store goes from Redis to MySQL and back while nodes serve it, by the commands of docs/state.md as they are printed. The copy is killed in
// its midst and goes on. Nothing is lost, and events tell of it.
func TestMigrateCommand(t *testing.T) {
	t.Parallel()
	const keys = 12_000
	redis, mysql := servers.Redis(t).URL, servers.MySQL(t).DSN
	folder := t.TempDir()
	file := filepath.Join(folder, "bannou.yaml")
	require.NoError(t, os.WriteFile(file, []byte(printed(t, "bannou.yaml")), 0o600))
	serve := []string{"--config", file, "--state-redis-url", redis, "--state-mysql-dsn", mysql}
	n := startNode(t, serve...)
	store := direct(n.url)
	for from := 0; from < keys; from += 1000 {
		items := make([]object, 1000)
		for i := range items {
			items[i] = object{"key": fmt.Sprintf("k-%05d", from+i), "value": object{"i": from + i}}
		}
		store.must(t, "state/bulk-save", object{"storeName": "auth", "items": items})
	}
	environment := append(cleanEnvironment(), "BANNOU_NODE="+n.url, "BANNOU_STATE_REDIS_URL="+redis, "BANNOU_STATE_MYSQL_DSN="+mysql,
		"PATH="+filepath.Dir(binary)+":"+os.Getenv("PATH"))
	tail := exec.CommandContext(t.Context(), binary, "tail", "state.migration", "--output", "json")
	tail.Env = environment
	var told lockedBuffer
	tail.Stdout = &told
	require.NoError(t, tail.Start())
	t.Cleanup(func() { _ = tail.Process.Kill(); _ = tail.Wait() })

	commands := strings.Split(strings.TrimSpace(printed(t, "commands")), "\n")
	require.Len(t, commands, 7)
	shell := func(command string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", "exec "+command)
		cmd.Dir, cmd.Env = folder, environment
		return cmd
	}
	status := func() (s struct {
		Phase       string
		Keys, Total int64
		Copied      bool
		Closing     bool
		Waiting     int64
	}) {
		out, err := shell(commands[1] + " -o json").Output()
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(out, &s))
		return s
	}

	// Killed in its midst.
	first := shell(commands[0])
	var progress lockedBuffer
	first.Stderr = &progress
	require.NoError(t, first.Start())
	require.Eventually(t, func() bool { s := status(); return s.Keys > 0 && s.Phase == "mirror" }, patience, 10*time.Millisecond)
	require.NoError(t, first.Process.Signal(syscall.SIGKILL))
	_ = first.Wait()
	interrupted := status()
	t.Logf("killed after %d of %d keys", interrupted.Keys, interrupted.Total)

	counter := func(phase string) {
		t.Helper()
		for i := range 20 {
			store.must(t, "state/save", object{"storeName": "auth", "key": fmt.Sprintf("%s-%d", phase, i), "value": i})
		}
		_, answer := store.call(t, "state/delete", object{"storeName": "auth", "key": fmt.Sprintf("k-%05d", len(phase))})
		require.NotNil(t, answer)
	}
	for i, command := range commands {
		if i == 2 { // killed in the pause: reads go on, changes wait until it is done again
			killed := shell(command)
			require.NoError(t, killed.Start())
			require.Eventually(t, func() bool { return status().Closing }, patience, 10*time.Millisecond)
			require.NoError(t, killed.Process.Kill())
			_ = killed.Wait()
			store.must(t, "state/get", object{"storeName": "auth", "key": "k-00000"})
		}
		out, err := shell(command).CombinedOutput()
		require.NoError(t, err, "%s\n%s", command, out)
		t.Logf("%s\n%s", command, out)
		switch i {
		case 0:
			require.Contains(t, string(out), "the same\n")
			require.Contains(t, string(out), "--cut-over")
			require.GreaterOrEqual(t, status().Keys, interrupted.Keys)
			require.Equal(t, "mirror", status().Phase)
			counter("mirror")
		case 2:
			require.Equal(t, "target", status().Phase)
			counter("target")
			require.Eventually(t, func() bool { return status().Waiting == 0 }, patience, 20*time.Millisecond)
		case 3:
			require.Contains(t, string(out), "the same\n", "what is written to the new place is carried to the old one")
		case 4:
			require.Equal(t, "mirror", status().Phase)
			counter("again")
		case 6:
			require.Equal(t, "done", status().Phase)
			counter("done")
		}
	}
	// The nodes are configured with the new place alone.
	require.Zero(t, n.stop(t), "%s", n.log)
	after := filepath.Join(folder, "after.yaml")
	require.NoError(t, os.WriteFile(after, []byte("state:\n  stores:\n    auth: {backend: mysql}\n"), 0o600))
	n = startNode(t, "--config", after, "--state-redis-url", redis, "--state-mysql-dsn", mysql)
	store = direct(n.url)
	var list struct {
		Stores []struct {
			Name, Backend string
			KeyCount      int64
		}
	}
	body, err := json.Marshal(store.must(t, "state/list-stores", object{"includeStats": true}))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(body, &list))
	listed := false
	for _, s := range list.Stores {
		if s.Name == "auth" {
			listed = true
			require.Equal(t, "mysql", s.Backend)
			require.EqualValues(t, keys+4*20-3, s.KeyCount, "four times 20 were saved; mirror, target, again and done deleted three")
		}
	}
	require.True(t, listed)
	for _, want := range []string{"started", "completed"} {
		require.Eventually(t, func() bool { return strings.Contains(told.String(), want) }, patience, 10*time.Millisecond, "no event says %q: %s", want, &told)
	}
}

// What cannot be is refused with a sentence and exit code 2, and no address is repeated.
func TestMigrateCommandMistakes(t *testing.T) {
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--from", "redis:auth"}, []string{"--to"}},
		{[]string{"--from", "redis", "--to", "mysql:auth"}, []string{"backend:store", "redis:auth"}},
		{[]string{"--from", "redis:auth", "--to", "mysql:auth"}, []string{"--state-redis-url"}},
		{[]string{"--from", "sqlite:accounts", "--to", "oracle:accounts"}, []string{`"oracle"`, "redis, mysql or sqlite"}},
		{[]string{"--from", "memory:auth", "--to", "sqlite:auth"}, []string{"no other process can read"}},
		{[]string{"--from", "sqlite:acounts", "--to", "sqlite:accounts"}, []string{`"acounts"`, "there are: accounts"}},
		{[]string{"--from", "sqlite:accounts", "--to", "sqlite:accounts"}, []string{"the same place", "key prefix or table"}},
		{[]string{"--from", "sqlite:accounts", "--to", "sqlite:accounts", "--to-table", "no;table"}, []string{"table name"}},
		{[]string{"--from", "sqlite:accounts", "--to", "mysql:accounts", "--state-mysql-dsn", "root:secret-word@nowhere"}, []string{"mysql"}},
		{[]string{"--from", "sqlite:accounts", "--to", "sqlite:other", "--cut-over", "--back"}, []string{"--cut-over", "--back"}},
	} {
		args := append([]string{"state", "migrate", "--data-dir", t.TempDir()}, c.args...)
		stdout, stderr, code := run(t, args...)
		require.Equal(t, 2, code, "%v\n%s%s", c.args, stdout, stderr)
		for _, want := range c.want {
			require.Contains(t, lastLine(stderr), want)
		}
		require.NotContains(t, stderr, "secret-word")
	}
	folder := t.TempDir()
	for _, c := range [][2]string{
		{"auth: {backend: memory, migration: {to: {backend: sqlite}}}", "no other process can read"},
		{"auth: {backend: sqlite, migration: {to: {backend: sqlite}}}", "is where the store is"},
		{"auth: {backend: sqlite, migration: {to: {backend: redis}}}", "--state-redis-url"},
		{"auth: {backend: sqlite, migration: {to: {backend: nothing}}}", `"nothing"`},
		{"auth: {backend: sqlite, migration: {too: {backend: redis}}}", "too"},
	} {
		file := filepath.Join(folder, "bannou.yaml")
		require.NoError(t, os.WriteFile(file, []byte("state:\n  stores:\n    "+c[0]+"\n"), 0o600))
		_, stderr, code := run(t, "serve", "--listen", "127.0.0.1:0", "--config", file, "--data-dir", folder)
		require.Equal(t, 2, code, stderr)
		require.Contains(t, stderr, c[1])
	}
}
