package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

// Events that no broker takes, as an earlier version of the program may have kept them: shown, tried again and removed by
// the command line.
func TestOutboxCommands(t *testing.T) {
	folder := t.TempDir()
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(folder, "state.db")})
	require.NoError(t, err)
	box, err := sqlite.OpenOutbox(t.Context(), state.OutboxConfig{Name: "bannou", MaxEntries: 100, MaxBytes: 1 << 20})
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, box.Enqueue(t.Context(), state.OutboxEntry{Topic: "game.lost", Body: []byte("not JSON"),
			Properties: []byte(`{"messageId":"old","contentType":"application/json"}`)}))
	}
	ofStores, err := sqlite.OpenOutbox(t.Context(), state.OutboxConfig{Name: "bannou state", MaxEntries: 100, MaxBytes: 1 << 20})
	require.NoError(t, err)
	require.NoError(t, ofStores.Enqueue(t.Context(), state.OutboxEntry{Topic: "score.lost", Body: []byte("nor is this"), Properties: []byte(`{"messageId":"older","contentType":"application/json"}`)}))
	require.NoError(t, sqlite.Close())
	file := filepath.Join(folder, "bannou.yaml")
	require.NoError(t, os.WriteFile(file, []byte("state:\n  stores:\n    scores: {backend: sqlite, publishChanges: true}\n"), 0o600))
	n := startNode(t, append(quick(), "--config", file, "--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", servers.RabbitMQ(t).URL, "--data-dir", folder)...)
	bannou := func(args ...string) (string, string, int) {
		return run(t, append(append([]string{"outbox"}, args...), "--node", n.url)...)
	}
	var list struct {
		Parked int
		Events []struct{ ID, Topic, Reason, Body string }
	}
	allParked := func() bool {
		out, errs, code := bannou("list", "-o", "json")
		require.Equal(t, 0, code, errs)
		require.NoError(t, json.Unmarshal([]byte(out), &list))
		return list.Parked == 3
	}
	require.Eventually(t, allParked, patience, 50*time.Millisecond)
	require.Equal(t, "game.lost", list.Events[0].Topic)
	require.Equal(t, "not JSON", list.Events[0].Body)
	require.Contains(t, getText(t, n.url+"/metrics", 200), "bannou_messaging_outbox_parked 3")
	require.Contains(t, getText(t, n.url+"/readyz", 200), `"outboxParked":3`)
	out, _, _ := bannou("list")
	require.Contains(t, out, "3 of 3 set aside (0 wait for the broker)")

	out, errs, code := bannou("retry", list.Events[0].ID)
	require.Equal(t, 0, code, errs)
	require.Contains(t, out, "1 wait to be sent again")
	require.Eventually(t, allParked, patience, 50*time.Millisecond, "nobody takes it still")

	out, errs, code = bannou("discard", list.Events[0].ID)
	require.Equal(t, 0, code, errs)
	require.Contains(t, out, "1 discarded")
	_, errs, code = bannou("discard", list.Events[0].ID)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "list them again")
	_, errs, code = bannou("discard", "--all")
	require.Equal(t, 2, code, "nobody is here to ask")
	require.Contains(t, errs, "--yes")
	_, _, code = bannou("retry")
	require.Equal(t, 2, code)
	out, errs, code = bannou("discard", "--all", "--yes")
	require.Equal(t, 0, code, errs)
	require.Contains(t, out, "2 discarded")
	out, _, _ = bannou("list")
	require.Contains(t, out, "published: 0 of 0 set aside")

	// Those of changed stores are in an outbox of their own.
	require.Eventually(t, func() bool {
		out, _, _ = bannou("list")
		return strings.Contains(out, "state/sqlite: 1 of 1 set aside")
	}, patience, 50*time.Millisecond)
	require.Contains(t, out, "score.lost")
	_, errs, code = bannou("discard", "--all", "--yes", "--outbox", "state/redis")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "no outbox of that name")
	out, errs, code = bannou("discard", "--all", "--yes", "--outbox", "state/sqlite")
	require.Equal(t, 0, code, errs)
	require.Contains(t, out, "1 discarded")
	out, _, _ = bannou("list")
	require.Contains(t, out, "state/sqlite: 0 of 0 set aside")
}
