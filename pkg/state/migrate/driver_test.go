package migrate

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

// Of two stores of one file, the one that is migrated tells of its changes after they were made; the other announces them as before.
func TestMigratedStoresTellOfTheirChanges(t *testing.T) {
	d, err := sqlitestate.New(sqlitestate.Config{Path: t.TempDir() + "/state.db"})
	require.NoError(t, err)
	there := memorystate.New()
	w, err := Wrap(d, Config{To: func(cfg state.StoreConfig) (Place, bool) {
		return Place{Driver: there, Store: state.StoreConfig{Name: cfg.Name}}, cfg.Name == "moving"
	}})
	require.NoError(t, err)
	var told, announced []string
	f, err := state.NewFactory([]state.StoreConfig{
		{Name: "moving", Backend: "sqlite", PublishChanges: true}, {Name: "staying", Backend: "sqlite", PublishChanges: true},
	}, []state.Driver{w}, state.Options{
		OnChange: func(_ context.Context, c state.Changed) { told = append(told, c.Store) },
		Announce: &state.Announce{
			Outbox: state.OutboxConfig{Name: "o", MaxEntries: 10, MaxBytes: 1 << 20},
			Entry: func(_ context.Context, c state.Changed) (state.OutboxEntry, error) {
				announced = append(announced, c.Store)
				return state.OutboxEntry{Key: c.Key, Topic: "t", Properties: []byte(`{}`), Body: []byte(`{}`)}, nil
			},
		},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, f.Close())
		require.NoError(t, there.Close())
	})
	for _, name := range []string{"moving", "staying"} {
		store, err := state.Open[int](t.Context(), f, name)
		require.NoError(t, err)
		_, err = store.Save(t.Context(), "k", 1)
		require.NoError(t, err)
	}
	require.Equal(t, []string{"moving"}, told)
	require.Equal(t, []string{"staying"}, announced)
}
