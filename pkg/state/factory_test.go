package state_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

// A gate is a driver whose Open waits and can fail, and which counts.
type gate struct {
	*memorystate.Driver
	wait   chan struct{}
	fail   atomic.Bool
	opened atomic.Int64
	closed atomic.Int64
	ready  error
}

func newGate() *gate { return &gate{Driver: memorystate.New(), wait: make(chan struct{})} }

func (g *gate) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	g.opened.Add(1)
	<-g.wait
	if g.fail.Load() {
		return nil, state.ErrUnavailable
	}
	return g.Driver.Open(ctx, cfg)
}

func (g *gate) Ready(context.Context) error { return g.ready }

func (g *gate) Close() error { g.closed.Add(1); return g.Driver.Close() }

func newFactory(t *testing.T, d state.Driver, o state.Options, names ...string) *state.Factory {
	t.Helper()
	var stores []state.StoreConfig
	for _, name := range names {
		stores = append(stores, state.StoreConfig{Name: name, Backend: "memory"})
	}
	f, err := state.NewFactory(stores, []state.Driver{d}, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// Many that open a store at once cause one Open; one that failed is tried again; one that waits honours its deadline.
func TestOpenOnce(t *testing.T) {
	g := newGate()
	f := newFactory(t, g, state.Options{}, "s")
	var wait sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wait.Go(func() { _, errs[i] = state.Open[int](t.Context(), f, "s") })
	}
	require.Eventually(t, func() bool { return g.opened.Load() == 1 }, 5*time.Second, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := state.Open[int](ctx, f, "s")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	close(g.wait)
	wait.Wait()
	require.NoError(t, errors.Join(errs...))
	require.EqualValues(t, 1, g.opened.Load())

	g = newGate()
	close(g.wait)
	g.fail.Store(true)
	f = newFactory(t, g, state.Options{}, "s")
	_, err = state.Open[int](t.Context(), f, "s")
	require.ErrorIs(t, err, state.ErrUnavailable)
	require.ErrorContains(t, err, `"s"`)
	g.fail.Store(false)
	_, err = state.Open[int](t.Context(), f, "s")
	require.NoError(t, err)
}

func TestUnknownStore(t *testing.T) {
	f := newFactory(t, memorystate.New(), state.Options{}, "accounts", "auth")
	for _, open := range []func() error{
		func() error { _, err := state.Open[int](t.Context(), f, "acounts"); return err },
		func() error { _, err := state.OpenQueryable[int](t.Context(), f, "acounts"); return err },
		func() error { _, err := f.Backend("acounts"); return err },
		func() error { _, err := f.Len(t.Context(), "acounts"); return err },
	} {
		err := open()
		require.ErrorIs(t, err, state.ErrUnknownStore)
		require.EqualError(t, err, `state: unknown store "acounts"; there are: accounts, auth`)
	}
	require.True(t, f.Has("auth"))
	require.False(t, f.Has("acounts"))
	backend, err := f.Backend("auth")
	require.NoError(t, err)
	require.Equal(t, "memory", backend)
	_, err = state.OpenQueryable[int](t.Context(), f, "auth")
	require.ErrorIs(t, err, state.ErrUnsupported)
}

// What cannot work is refused at the start, with the name of the store.
func TestBadConfigurations(t *testing.T) {
	good := state.StoreConfig{Name: "good", Backend: "memory"}
	for name, bad := range map[string]state.StoreConfig{
		"no driver":        {Name: "bad", Backend: "redis"},
		"no name":          {Backend: "memory"},
		"upper case":       {Name: "Bad", Backend: "memory"},
		"leading digit":    {Name: "1bad", Backend: "memory"},
		"path":             {Name: "../bad", Backend: "memory"},
		"colon":            {Name: "bad:1", Backend: "memory"},
		"twice":            good,
		"table":            {Name: "bad", Backend: "memory", TableName: "t; DROP TABLE x"},
		"negative TTL":     {Name: "bad", Backend: "memory", DefaultTTL: -1},
		"same prefix":      {Name: "bad", Backend: "memory", KeyPrefix: "good"},
		"prefix within":    {Name: "bad", Backend: "memory", KeyPrefix: "good:more"},
		"prefix not UTF-8": {Name: "bad", Backend: "memory", KeyPrefix: "\xff"},
	} {
		_, err := state.NewFactory([]state.StoreConfig{good, bad}, []state.Driver{memorystate.New()}, state.Options{})
		require.ErrorIs(t, err, state.ErrInvalid, name)
		if bad.Name != "" {
			require.ErrorContains(t, err, bad.Name, name)
		}
	}
	_, err := state.NewFactory(nil, []state.Driver{memorystate.New(), memorystate.New()}, state.Options{})
	require.ErrorIs(t, err, state.ErrInvalid)
	_, err = state.NewFactory([]state.StoreConfig{good, {Name: "good-2", Backend: "memory"}}, []state.Driver{memorystate.New()}, state.Options{})
	require.NoError(t, err, "a longer name is no overlap")
}

func TestStores(t *testing.T) {
	f := newFactory(t, memorystate.New(), state.Options{}, "b", "a")
	require.Equal(t, []state.StoreConfig{
		{Name: "a", Backend: "memory", KeyPrefix: "a", TableName: "state_entries"},
		{Name: "b", Backend: "memory", KeyPrefix: "b", TableName: "state_entries"},
	}, f.Stores())
}

func TestReadyNamesTheBackend(t *testing.T) {
	g := newGate()
	f := newFactory(t, g, state.Options{}, "s")
	require.NoError(t, f.Ready(t.Context()))
	g.ready = errors.New("gone fishing")
	require.EqualError(t, f.Ready(t.Context()), "memory: gone fishing")
	require.Equal(t, map[string]error{"memory": g.ready}, f.ReadyBackends(t.Context()))

	unused := newFactory(t, g, state.Options{})
	require.NoError(t, unused.Ready(t.Context()), "a driver without stores need not be there")
}

func TestCloseOnce(t *testing.T) {
	g := newGate()
	close(g.wait)
	f := newFactory(t, g, state.Options{}, "s", "t")
	_, err := state.Open[int](t.Context(), f, "s")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, f.Close())
	require.EqualValues(t, 1, g.closed.Load())
	for _, name := range []string{"s", "t"} {
		_, err = state.Open[int](t.Context(), f, name)
		require.ErrorIs(t, err, state.ErrUnavailable)
	}
}

func TestSlowOperationsAreLogged(t *testing.T) {
	var log bytes.Buffer
	f := newFactory(t, memorystate.New(), state.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), SlowOperation: time.Nanosecond}, "s")
	store, err := state.Open[string](t.Context(), f, "s")
	require.NoError(t, err)
	_, err = store.Save(t.Context(), "k", "secret")
	require.NoError(t, err)
	require.Contains(t, log.String(), "store=s backend=memory operation=save key=k")
	require.NotContains(t, log.String(), "secret")

	log.Reset()
	f = newFactory(t, memorystate.New(), state.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, "s")
	store, err = state.Open[string](t.Context(), f, "s")
	require.NoError(t, err)
	_, err = store.Get(t.Context(), "k")
	require.ErrorIs(t, err, state.ErrNotFound)
	require.Empty(t, log.String())
}
