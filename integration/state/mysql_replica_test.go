package state_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// Reads that may be late come from the replica, in every form; those that may not, and all changes, go to the primary. A
// replica that hangs or is away costs some time, and no read.
func TestMySQLReplica(t *testing.T) {
	servers := servers.NewMySQLReplication(t, servers.MySQLOptions{})
	ctx := t.Context()
	d := newMySQL(t, mysqlstate.Config{DSN: servers.Primary.DSN, ReplicaDSN: servers.Replica.DSN})
	f, err := state.NewFactory([]state.StoreConfig{{Name: "s", Backend: "mysql"}}, []state.Driver{d}, state.Options{})
	require.NoError(t, err)
	store, err := state.OpenQueryable[jsontext.Value](ctx, f, "s")
	require.NoError(t, err)
	late := store.Eventual()

	_, err = late.Get(ctx, "k")
	require.ErrorIs(t, err, state.ErrNotFound, "the table is not there yet, on either")
	old, err := late.Save(ctx, "k", jsontext.Value(`1`))
	require.NoError(t, err)
	require.NoError(t, servers.CatchUp(ctx))
	var failed error
	require.Eventually(t, func() bool { // the replica had no table, and is left alone for a while
		failed = servers.Hold(ctx)
		if failed == nil {
			_, failed = store.Save(ctx, "new", jsontext.Value(`2`))
		}
		found := false
		if failed == nil {
			found, failed = late.Exists(ctx, "new")
		}
		if failed == nil && found {
			_, err := store.Delete(ctx, "new")
			failed = errors.Join(err, servers.Follow(ctx), servers.CatchUp(ctx))
		}
		return failed != nil || !found
	}, patience, 100*time.Millisecond)
	require.NoError(t, failed)

	// The replica stands still: the one key is there, and the newer one is not.
	_, err = store.Save(ctx, "k", jsontext.Value(`2`))
	require.NoError(t, err)
	entry, err := late.GetWithETag(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "1", string(entry.Value))
	require.Equal(t, old, entry.ETag)
	entries, err := late.GetBulk(ctx, []string{"k", "new"})
	require.NoError(t, err)
	require.Equal(t, []bool{true, false}, []bool{entries[0].Found, entries[1].Found})
	found, err := late.Query(ctx, state.Query{})
	require.NoError(t, err)
	require.Len(t, found, 1)
	n, err := late.Count(ctx, state.Filter{})
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	n, err = late.Len(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	_, err = late.TrySave(ctx, "k", jsontext.Value(`3`), old)
	require.ErrorIs(t, err, state.ErrConflict, "conditions hold on the primary")
	n, err = store.Len(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)

	require.NoError(t, servers.Follow(ctx))
	require.NoError(t, servers.CatchUp(ctx))
	entry, err = late.GetWithETag(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "2", string(entry.Value))

	for name, harm := range map[string]func() error{"hangs": servers.Replica.Pause, "is away": servers.Replica.Kill} {
		require.NoError(t, servers.Replica.Restart(ctx))
		require.NoError(t, harm(), name)
		for range 3 {
			limited, cancel := context.WithTimeout(ctx, 2*time.Second)
			v, err := late.Get(limited, "k")
			cancel()
			require.NoError(t, err, name)
			require.Equal(t, "2", string(v), name)
		}
		require.NoError(t, d.Ready(ctx), "the primary is there")
	}
}
