package state_test

import (
	"context"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

// A waiter whose time ends while it asks the store once more learns that the lock was held, as one does whose time ends between two looks.
func TestAcquireThatEndsInALookSaysLocked(t *testing.T) {
	driver := &slowLooks{Driver: memorystate.New()}
	f, err := state.NewFactory([]state.StoreConfig{{Name: "s", Backend: "memory"}}, []state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	lock, err := state.OpenLock(t.Context(), f, "s", "l", state.LockOptions{Poll: 10 * time.Millisecond})
	require.NoError(t, err)
	held, err := lock.Acquire(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = held.Release(context.Background()) })

	driver.last.Store(driver.looks.Load() + 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = lock.Acquire(ctx)
	require.ErrorIs(t, err, state.ErrLocked)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// slowLooks answers reads up to the last one, if there is a last one, and keeps those after it until their time ends.
type slowLooks struct {
	state.Driver
	looks, last atomic.Int64
}

func (d *slowLooks) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	e, err := d.Driver.Open(ctx, cfg)
	return &slowLook{Engine: e, driver: d}, err
}

type slowLook struct {
	state.Engine
	driver *slowLooks
}

func (e *slowLook) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	last := e.driver.last.Load()
	if look := e.driver.looks.Add(1); last > 0 && look > last {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return e.Engine.Get(ctx, keys)
}

// One renewal that no answer comes to, as from a connection that is dead, costs no lock: it is given up while there is time to ask again.
func TestRenewalThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	const ttl = 3 * time.Second
	driver := &watchedRenewal{Driver: memorystate.New(), left: make(chan time.Duration, 1)}
	f, err := state.NewFactory([]state.StoreConfig{{Name: "s", Backend: "memory"}}, []state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	lock, err := state.OpenLock(t.Context(), f, "s", "l", state.LockOptions{TTL: ttl})
	require.NoError(t, err)
	held, err := lock.Acquire(t.Context())
	require.NoError(t, err)
	require.LessOrEqual(t, <-driver.left, ttl/3)
	require.NoError(t, held.Release(t.Context()))
}

// watchedRenewal tells how much time the first change has that is no transaction.
type watchedRenewal struct {
	state.Driver
	left chan time.Duration
}

func (d *watchedRenewal) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	e, err := d.Driver.Open(ctx, cfg)
	return &watchedEngine{Engine: e, driver: d}, err
}

type watchedEngine struct {
	state.Engine
	driver *watchedRenewal
}

func (e *watchedEngine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	left := time.Duration(math.MaxInt64)
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	select {
	case e.driver.left <- left:
	default:
	}
	return e.Engine.Apply(ctx, changes)
}
