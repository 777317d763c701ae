package migrate

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

// While the place that decides is away, reads that may be late are answered by the other one, for as long as that lasts; all else says
// that it cannot be done.
func TestEventualReadsFallBack(t *testing.T) {
	old, young := memorystate.New(), &awayDriver{Driver: memorystate.New()}
	f, err := state.NewFactory([]state.StoreConfig{{Name: "s", Backend: "memory"}}, []state.Driver{wrapped(t, old, young, Target)}, state.Options{})
	require.NoError(t, err)
	store, err := state.Open[int](t.Context(), f, "s")
	require.NoError(t, err)
	_, err = store.Save(t.Context(), "k", 1)
	require.NoError(t, err)
	there := openInts(t, old, "s")
	require.Eventually(t, func() bool { v, err := there.Get(t.Context(), "k"); return err == nil && v == 1 }, 5*time.Second, time.Millisecond)

	young.away.Store(true)
	for range 2 { // within the lease, and after it
		_, err = store.Get(t.Context(), "k")
		require.ErrorIs(t, err, state.ErrUnavailable)
		v, err := store.Eventual().Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, 1, v)
		present, err := store.Eventual().Exists(t.Context(), "k")
		require.NoError(t, err)
		require.True(t, present)
		_, err = store.Eventual().Save(t.Context(), "k", 2)
		require.ErrorIs(t, err, state.ErrUnavailable)
		endLease(t, young, store)
	}
	young.away.Store(false)
	_, err = store.Save(t.Context(), "k", 3)
	require.NoError(t, err)
	v, err := store.Eventual().Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, 3, v, "the place that decides is asked first")
}

// endLease waits until the phase has not been read for too long.
func endLease(t *testing.T, d *awayDriver, store *state.Store[int]) {
	t.Helper()
	require.Eventually(t, func() bool {
		before := d.asked.Load()
		_, err := store.Get(t.Context(), "none")
		return err != nil && d.asked.Load() == before // the store itself is not asked any more
	}, time.Minute, 50*time.Millisecond)
}

func openInts(t *testing.T, d state.Driver, name string) *state.Store[int] {
	t.Helper()
	f, err := state.NewFactory([]state.StoreConfig{{Name: name, Backend: d.Backend()}}, []state.Driver{d}, state.Options{})
	require.NoError(t, err)
	store, err := state.Open[int](t.Context(), f, name)
	require.NoError(t, err)
	return store
}

// An awayDriver is one whose server can be away.
type awayDriver struct {
	state.Driver
	away  atomic.Bool
	asked atomic.Int64 // how often the store was asked while it was
}

func (d *awayDriver) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	e, err := d.Driver.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &awayEngine{Scanner: e.(state.Scanner), driver: d, store: cfg.Name}, nil
}

type awayEngine struct {
	state.Scanner
	driver *awayDriver
	store  string
}

func (e *awayEngine) check() error {
	if !e.driver.away.Load() {
		return nil
	}
	if e.store == "s" {
		e.driver.asked.Add(1)
	}
	return state.ErrUnavailable
}

func (e *awayEngine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	return e.Scanner.Get(ctx, keys)
}

func (e *awayEngine) Exists(ctx context.Context, keys []string) ([]bool, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	return e.Scanner.Exists(ctx, keys)
}

func (e *awayEngine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	return e.Scanner.Apply(ctx, changes)
}
