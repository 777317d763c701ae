package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// What is on Dapr's rows in Redis is compared with another view of them while the node serves, which is no reason to go to Dapr; forced, the
// command decides, the decision outlives the node, a setting overrules it and the log says so, and rollback undoes it.
func TestSwitchCommand(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := filepath.Join(folder, "bannou.yaml")
	require.NoError(t, os.WriteFile(file, []byte(`
state:
  stores:
    accounts: {backend: redis, keyPrefix: "shop||"}
  mirrors:
    accounts: {to: redis, keyPrefix: "shop||", etags: true}
`), 0o600))
	serve := []string{"--config", file, "--state-redis-url", servers.Redis(t).URL, "--data-dir", folder, "--services", "messaging,state,mesh"}
	n := startNode(t, serve...)
	migrate := func(args ...string) (stdout, stderr string, code int) {
		return run(t, append(append([]string{"migrate"}, args...), "--node", n.url)...)
	}
	type item struct {
		Running, Next, Setting, Why string
		Overruled, Safe             bool
		Comparison                  struct{ Compared, Different int64 }
	}
	look := func() (is item, known bool) {
		out, _, code := migrate("status", "store", "accounts", "--json")
		var s struct{ Items []item }
		if code != 0 || json.Unmarshal([]byte(out), &s) != nil || len(s.Items) != 1 {
			return is, false
		}
		return s.Items[0], true
	}
	status := func() item {
		is, known := look()
		require.True(t, known)
		return is
	}

	_, errs, code := migrate("switch", "store", "accounts", "--to", "dapr")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "not with what Dapr has")

	tail := exec.CommandContext(t.Context(), binary, "tail", "state.migration", "--output", "json", "--node", n.url)
	tail.Env = cleanEnvironment()
	var told lockedBuffer
	tail.Stdout = &told
	require.NoError(t, tail.Start())
	t.Cleanup(func() { _ = tail.Process.Kill(); _ = tail.Wait() })

	store := direct(n.url)
	items := make([]object, 200)
	for i := range items {
		items[i] = object{"key": fmt.Sprint(i), "value": object{"n": i}}
	}
	store.must(t, "state/bulk-save", object{"storeName": "accounts", "items": items})
	require.Eventually(t, func() bool { is, known := look(); return known && is.Comparison.Compared >= 200 }, patience, 50*time.Millisecond)
	require.Zero(t, status().Comparison.Different)

	require.Eventually(t, func() bool { // until the tail listens
		out, _, code := migrate("switch", "store", "accounts", "--to", "dapr", "--force")
		return code == 0 && strings.Contains(out, "on dapr from the next start") && told.String() != ""
	}, patience, 50*time.Millisecond)
	require.Equal(t, [2]string{"native", "dapr"}, [2]string{status().Running, status().Next})
	require.Contains(t, told.String(), `"accounts"`)

	// A setting takes it back, and says so.
	require.Zero(t, n.stop(t), "%s", n.log)
	n = startNode(t, append(serve, "--state-backends", "accounts=native")...)
	now := status()
	require.Equal(t, "native", now.Running)
	require.True(t, now.Overruled)
	require.Equal(t, "--state-backends", now.Setting)
	require.Contains(t, n.log.String(), "a decision of `bannou migrate` does not hold")
	_, errs, code = migrate("switch", "store", "accounts", "--to", "dapr", "--force")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "--state-backends chooses native")

	// Undone, the node starts without the setting as it was.
	out, errs, code := migrate("rollback", "store", "accounts")
	require.Zero(t, code, errs)
	require.Contains(t, out, "on native from the next start")
	require.Zero(t, n.stop(t), "%s", n.log)
	n = startNode(t, serve...)
	require.Equal(t, "native", status().Running)
	out, errs, code = migrate("plan")
	require.Zero(t, code, errs)
	require.Contains(t, out, "nothing is on Dapr")

	// Half a decision is none.
	require.Zero(t, n.stop(t), "%s", n.log)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "migration.json"), []byte(`{"version":1,"deci`), 0o600))
	_, errs, code = run(t, append([]string{"serve"}, serve...)...)
	require.Equal(t, 2, code)
	require.Contains(t, errs, "migration.json is damaged")
}
