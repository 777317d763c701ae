package state_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// Callers who share a transaction save and remove a key that was absent, and another process makes its row before they have the turn of the
// outbox. Theirs come after it then, as their entries do: the row is theirs to remove.
func TestMySQLPassingKeyMadeByAnotherMeanwhile(t *testing.T) {
	dsn := servers.MySQL(t).DSN
	d := newMySQL(t, mysqlstate.Config{DSN: dsn})
	box := state.OutboxConfig{Name: "changes", MaxEntries: 1000, MaxBytes: 1 << 20}
	e, err := d.OpenAnnouncing(t.Context(), state.StoreConfig{Name: "s", Backend: d.Backend(), TableName: "state_entries"}, box)
	require.NoError(t, err)
	change := func(key string, remove bool) state.Change {
		return state.Change{Key: key, Delete: remove, Value: []byte("1"), Expiry: state.Never, Announce: func(state.Outcome) (state.OutboxEntry, error) {
			return state.OutboxEntry{Key: key, Topic: "changed", Properties: []byte("{}"), Body: []byte("{}")}, nil
		}}
	}
	_, err = e.Apply(t.Context(), []state.Change{change("first", false)}) // makes the tables, and the turn
	require.NoError(t, err)

	db := openSQL(t, dsn)
	other, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { _ = other.Rollback() }() // after Commit it does nothing
	var turns int64
	require.NoError(t, other.QueryRowContext(t.Context(), "SELECT turns FROM outbox_turn WHERE name = 'changes' FOR UPDATE").Scan(&turns))
	var outcomes []state.Outcome
	made := make(chan error, 1)
	go func() {
		var err error
		outcomes, err = e.Apply(t.Context(), []state.Change{change("k", false), change("k", true)}) // as those who gathered
		made <- err
	}()
	require.Eventually(t, func() bool {
		var waiting int
		err := db.QueryRow("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND INFO LIKE 'UPDATE outbox_turn%'").Scan(&waiting)
		return err == nil && waiting == 1
	}, patience, time.Millisecond)
	_, err = other.ExecContext(t.Context(), "INSERT INTO state_entries (store, `key`, value, etag, version, created_at, updated_at)"+
		" VALUES ('s', 'k', '2', 'another', 1, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))")
	require.NoError(t, err)
	require.NoError(t, other.Commit())

	require.NoError(t, <-made)
	require.True(t, outcomes[0].Done)
	require.EqualValues(t, 2, outcomes[0].Version, "it comes after the other's")
	require.True(t, outcomes[1].Done)
	present, err := e.Exists(t.Context(), []string{"k"})
	require.NoError(t, err)
	require.False(t, present[0], "the last entry says that it is gone")
}
