package mirror

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

// A store that is mirrored keeps all that a store promises, as if there were no mirror: the suite of the drivers, with a counterpart that
// changes are carried to, and with one that is away.
func TestStoreKeepsItsPromises(t *testing.T) {
	t.Run("carried", func(t *testing.T) {
		statetest.Run(t, func(t *testing.T) state.Driver {
			return mirrored(t, memorystate.New(), Counterpart{Driver: memorystate.New(), Writes: true}, nil)
		}, statetest.Features{AnyKeys: true})
	})
	t.Run("counterpart away", func(t *testing.T) {
		statetest.Run(t, func(t *testing.T) state.Driver {
			away := memorystate.New()
			require.NoError(t, away.Close())
			return mirrored(t, memorystate.New(), Counterpart{Driver: away, Writes: true, Sample: 0.5, Queue: 10}, nil)
		}, statetest.Features{AnyKeys: true})
	})
}

// The same on a database, whose conformance includes queries.
func TestDatabaseKeepsItsPromises(t *testing.T) {
	statetest.RunQueries(t, func(t *testing.T) state.Driver {
		return mirrored(t, database(t), Counterpart{Driver: memorystate.New(), Writes: true}, nil)
	}, 1)
}

// What is more than stores a mirrored driver has too: outboxes, announcing, inboxes, walks.
func TestNothingIsLostByWrapping(t *testing.T) {
	d := mirrored(t, database(t), Counterpart{Driver: memorystate.New()}, nil)
	require.Implements(t, (*state.Announcer)(nil), d)
	require.Implements(t, (*state.InboxDriver)(nil), d)
	_, announces := mirrored(t, memorystate.New(), Counterpart{Driver: memorystate.New()}, nil).(state.Announcer)
	require.False(t, announces)
	e, err := d.Open(t.Context(), state.StoreConfig{Name: "players", TableName: "state_entries"})
	require.NoError(t, err)
	require.Implements(t, (*state.Scanner)(nil), e)
	require.Implements(t, (*state.Indexer)(nil), e)
	_, replicated := e.(state.Replicated)
	require.False(t, replicated)
}

func database(t *testing.T) state.Driver {
	t.Helper()
	d, err := sqlitestate.New(sqlitestate.Config{Path: t.TempDir() + "/state.db"})
	require.NoError(t, err)
	return d
}

// mirrored is a driver all of whose stores have a counterpart.
func mirrored(t *testing.T, here state.Driver, to Counterpart, l *Ledger) state.Driver {
	t.Helper()
	d, err := Wrap(here, Config{Ledger: l, To: func(state.StoreConfig) (Counterpart, bool) { return to, true }})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, d.Close())
		require.NoError(t, to.Driver.Close())
	})
	return d
}
