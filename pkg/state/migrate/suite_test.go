package migrate

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

// A store that is migrated keeps all that a store promises, in every phase: the suite of the drivers, the histories included.
func TestStoreKeepsItsPromises(t *testing.T) {
	for _, phase := range []Phase{Source, Mirror, Target, Done} {
		t.Run(string(phase), func(t *testing.T) {
			statetest.Run(t, func(t *testing.T) state.Driver {
				return wrapped(t, memorystate.New(), memorystate.New(), phase)
			}, statetest.Features{AnyKeys: true})
		})
	}
}

// The same with a database on the other side, whose conformance includes queries while it decides.
func TestQueriesWhereTheDatabaseDecides(t *testing.T) {
	statetest.RunQueries(t, func(t *testing.T) state.Driver {
		d, err := sqlitestate.New(sqlitestate.Config{Path: t.TempDir() + "/new.db"})
		require.NoError(t, err)
		return wrapped(t, memorystate.New(), d, Target)
	}, 2)
}

// wrapped is a driver of which every store is migrated, and in a phase.
func wrapped(t *testing.T, from, to state.Driver, phase Phase) state.Driver {
	t.Helper()
	d, err := Wrap(from, Config{To: func(cfg state.StoreConfig) (Place, bool) {
		there := Place{Driver: to, Store: state.StoreConfig{Name: cfg.Name, Indexes: cfg.Indexes}}
		old, young, err := openSides(t.Context(), Place{Driver: from, Store: cfg}, there)
		if err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		if err == nil {
			side := old
			if !phase.old() {
				side = young
			}
			_, err = side.setRecord(t.Context(), record{Epoch: 1, Phase: phase, From: old.where, To: young.where}, "")
			if err != nil {
				t.Log(fmt.Errorf("the phase was set before: %w", err))
			}
		}
		return there, true
	}})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, d.Close())
		require.NoError(t, to.Close())
	})
	return d
}
