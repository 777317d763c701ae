package memorystate_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDriver(t *testing.T) {
	statetest.Run(t, func(t *testing.T) state.Driver {
		d := memorystate.New()
		t.Cleanup(func() { _ = d.Close() })
		return d
	}, statetest.Features{AnyKeys: true, Corrupt: corrupt})
}

// corrupt changes a value past the store's check of what is JSON.
func corrupt(t *testing.T, d state.Driver, store, key, text string) {
	t.Helper()
	e, err := d.Open(t.Context(), state.StoreConfig{Name: store})
	require.NoError(t, err)
	outcomes, err := e.Apply(t.Context(), []state.Change{{Key: key, Value: []byte(text), Expiry: state.Keep}})
	require.NoError(t, err)
	require.True(t, outcomes[0].Done)
}
