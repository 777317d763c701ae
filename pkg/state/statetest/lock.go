package statetest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// lockTTL is short, since tests wait for it, and long enough that a slow machine renews in time.
const lockTTL = 600 * time.Millisecond

// lockSlack is how much earlier than expected something may happen, and a tenth of how much later on a busy machine.
const lockSlack = 400 * time.Millisecond

// One holder at a time, and each has a greater token than the one before: a leader's promise.
func lockExcludes(t *testing.T, s *suite) {
	s.needs(t, Conditions, ToldETags)
	f, name := lockStore(t, s.driver)
	var inside atomic.Int32
	var last atomic.Int64
	together(t, 6, func(int) error { // none is to lose it by time
		lock, err := state.OpenLock(t.Context(), f, name, "l", state.LockOptions{TTL: time.Minute, Poll: 10 * time.Millisecond})
		if err != nil {
			return err
		}
		for range 4 {
			h, err := lock.Acquire(t.Context())
			if err != nil {
				return err
			}
			if n := inside.Add(1); n != 1 {
				return fmt.Errorf("%d hold the lock", n)
			}
			if before := last.Swap(h.Token()); h.Token() <= before {
				return fmt.Errorf("token %d after %d", h.Token(), before)
			}
			inside.Add(-1)
			if err := h.Release(t.Context()); err != nil {
				return err
			}
		}
		return nil
	})
}

// A lock is kept for as long as its holder lives, by renewal; and others learn who is in their way.
func lockIsKept(t *testing.T, s *suite) {
	s.needs(t, Conditions, ToldETags)
	f, name := lockStore(t, s.driver)
	lock := openLock(t, f, name)
	h, err := lock.Acquire(t.Context())
	require.NoError(t, err)
	other := openLock(t, f, name)
	_, err = other.TryAcquire(t.Context())
	require.ErrorIs(t, err, state.ErrLocked)
	require.ErrorContains(t, err, name)
	require.ErrorContains(t, err, `"l"`)
	ctx, cancel := context.WithTimeout(t.Context(), 2*lockTTL)
	defer cancel()
	begun := time.Now()
	_, err = other.Acquire(ctx)
	require.ErrorIs(t, err, state.ErrLocked)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.WithinRange(t, time.Now(), begun.Add(2*lockTTL-lockSlack), begun.Add(2*lockTTL+10*lockSlack))
	require.NoError(t, h.Context().Err())

	require.NoError(t, h.Release(t.Context()))
	require.NoError(t, h.Release(t.Context()), "releasing twice does no harm")
	require.ErrorIs(t, context.Cause(h.Context()), context.Canceled)
	require.NotErrorIs(t, context.Cause(h.Context()), state.ErrLockLost)
	next, err := other.TryAcquire(t.Context())
	require.NoError(t, err, "free at once")
	require.NoError(t, next.Release(t.Context()))
}

// Tokens grow over releases, expiries and the deletion of all that is stored of the lock.
func lockTokensGrow(t *testing.T, s *suite) {
	s.needs(t, Conditions, ToldETags)
	f, name := lockStore(t, s.driver)
	store, err := state.Open[any](t.Context(), f, name)
	require.NoError(t, err)
	lock := openLock(t, f, name)
	last := int64(0)
	for _, end := range []func(h *state.Hold) error{
		func(h *state.Hold) error { return h.Release(t.Context()) },
		func(h *state.Hold) error { _, err := store.Delete(t.Context(), "{l}:lock"); return err },
		func(h *state.Hold) error {
			_, err := store.DeleteBulk(t.Context(), []string{"{l}:lock", "{l}:lock-token"})
			return err
		},
		func(h *state.Hold) error { return h.Release(t.Context()) },
	} {
		h, err := lock.Acquire(t.Context())
		require.NoError(t, err)
		require.Greater(t, h.Token(), last)
		last = h.Token()
		require.NoError(t, end(h))
		if err := h.Release(t.Context()); err != nil {
			require.ErrorIs(t, err, state.ErrLockLost)
		}
	}
}

// A holder whose lock somebody took away learns of it by its context, and that it was not released.
func lockLossIsTold(t *testing.T, s *suite) {
	s.needs(t, Conditions, ToldETags)
	f, name := lockStore(t, s.driver)
	store, err := state.Open[any](t.Context(), f, name)
	require.NoError(t, err)
	h, err := openLock(t, f, name).Acquire(t.Context())
	require.NoError(t, err)
	_, err = store.Delete(t.Context(), "{l}:lock")
	require.NoError(t, err)
	select {
	case <-h.Context().Done():
	case <-time.After(lockTTL + 10*lockSlack):
		require.Fail(t, "the holder was not told")
	}
	require.ErrorIs(t, context.Cause(h.Context()), state.ErrLockLost)
	require.ErrorContains(t, context.Cause(h.Context()), name)
	require.ErrorIs(t, h.Release(t.Context()), state.ErrLockLost)
}

// The fencing: a holder whose engine stalls for longer than its time is told that it has lost the lock, a waiter gets it when that time is
// over and a little more, and the write that the old holder had begun fails when it arrives at last.
func lockFences(t *testing.T, s *suite) {
	s.needs(t, Conditions, ToldETags)
	f, name := lockStore(t, s.driver)
	stalled := &stallDriver{Driver: s.driver}
	slow := factory(t, stalled, state.Options{}, state.StoreConfig{Name: name})
	store, err := state.Open[string](t.Context(), slow, name)
	require.NoError(t, err)
	old, err := openLock(t, slow, name).Acquire(t.Context())
	require.NoError(t, err)
	write := func(h *state.Hold, s *state.Store[string], value string) error {
		_, err := s.TransactHeld(t.Context(), h, []state.Op[string]{{Key: "{l}data", Value: value}})
		return err
	}
	require.NoError(t, write(old, store, "old"))
	free := time.Now().Add(lockTTL)

	resume := stalled.stall()
	late := make(chan error, 1)
	arrived := stalled.waiting()
	go func() { late <- write(old, store, "late") }()
	<-arrived
	next, err := openLock(t, f, name).Acquire(t.Context())
	require.NoError(t, err)
	slack := lockSlack
	if s.features.WholeSeconds {
		slack += time.Second
	}
	require.WithinRange(t, time.Now(), free.Add(-slack), free.Add(10*slack), "the waiter waits for the time of the old holder, and little more")
	require.Greater(t, next.Token(), old.Token())
	healthy, err := state.Open[string](t.Context(), f, name)
	require.NoError(t, err)
	require.NoError(t, write(next, healthy, "next"))

	resume()
	require.ErrorIs(t, <-late, state.ErrLockLost)
	value, err := healthy.Get(t.Context(), "{l}data")
	require.NoError(t, err)
	require.Equal(t, "next", value)
	<-old.Context().Done()
	require.ErrorIs(t, context.Cause(old.Context()), state.ErrLockLost)
	require.ErrorIs(t, write(old, store, "later"), state.ErrLockLost)
	require.ErrorIs(t, old.Release(t.Context()), state.ErrLockLost)
	require.NoError(t, next.Context().Err(), "the old holder took nothing from the new one")
	require.NoError(t, next.Release(t.Context()))
}

// A transaction under a lock is one like any other: conflicts name its keys, listeners hear of its changes and not of the lock's.
func lockTransacts(t *testing.T, s *suite) {
	s.needs(t, Conditions, ToldETags)
	var mu sync.Mutex
	var heard []string
	name := newName()
	f := factory(t, s.driver, state.Options{OnChange: func(_ context.Context, c state.Changed) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, c.Key)
	}}, state.StoreConfig{Name: name, PublishChanges: true}, state.StoreConfig{Name: newName()})
	store, err := state.Open[int](t.Context(), f, name)
	require.NoError(t, err)
	h, err := openLock(t, f, name).Acquire(t.Context())
	require.NoError(t, err)
	results, err := store.TransactHeld(t.Context(), h, []state.Op[int]{{Key: "{l}a", Value: 1}, {Key: "{l}b", Value: 2}})
	require.NoError(t, err)
	require.Len(t, results, 2)
	_, err = store.TransactHeld(t.Context(), h, []state.Op[int]{{Key: "{l}a", Value: 1, ETag: &results[0].ETag}, {Key: "{l}b", Value: 2, ETag: &results[0].ETag}})
	var conflict *state.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, []string{"{l}b"}, conflict.Keys)
	together(t, 4, func(int) error {
		for range 5 {
			if _, err := store.TransactHeld(t.Context(), h, []state.Op[int]{{Key: "{l}a", Value: 3}}); err != nil {
				return err
			}
		}
		return nil
	})
	entry, err := store.GetWithETag(t.Context(), "{l}a")
	require.NoError(t, err)
	require.EqualValues(t, 21, entry.Version)
	for _, other := range f.Stores() {
		if other.Name != name {
			wrong, err := state.Open[int](t.Context(), f, other.Name)
			require.NoError(t, err)
			_, err = wrong.TransactHeld(t.Context(), h, []state.Op[int]{{Key: "{l}a", Value: 1}})
			require.ErrorIs(t, err, state.ErrInvalid)
		}
	}
	require.NoError(t, h.Release(t.Context()))
	mu.Lock()
	defer mu.Unlock()
	require.NotContains(t, heard, "{l}:lock")
	require.Len(t, heard, 22)
}

// Bad arguments are refused before anything is stored; what is stored under a lock's key and is no lock is corrupt.
func lockBadArguments(t *testing.T, s *suite) {
	f, name := lockStore(t, s.driver)
	for _, lock := range []string{"", "\xff", "\x00", string(make([]byte, 255))} {
		_, err := state.OpenLock(t.Context(), f, name, lock, state.LockOptions{})
		require.ErrorIs(t, err, state.ErrInvalid, "%q", lock)
	}
	for _, o := range []state.LockOptions{{TTL: -1}, {TTL: time.Millisecond}, {Poll: -1}, {TTL: 1<<63 - 1}} {
		_, err := state.OpenLock(t.Context(), f, name, "l", o)
		require.ErrorIs(t, err, state.ErrInvalid, "%v", o)
	}
	_, err := state.OpenLock(t.Context(), f, "absent", "l", state.LockOptions{})
	require.ErrorIs(t, err, state.ErrUnknownStore)
	store, err := state.Open[string](t.Context(), f, name)
	require.NoError(t, err)
	for _, key := range []string{"{l}:lock", "{m}:lock-token"} {
		mustSave(t, store, key, "somebody's text")
		lock, err := state.OpenLock(t.Context(), f, name, key[1:2], state.LockOptions{})
		require.NoError(t, err)
		_, err = lock.Acquire(t.Context())
		require.ErrorIs(t, err, state.ErrCorrupt)
		require.ErrorContains(t, err, key)
		require.ErrorContains(t, err, name)
	}
}

// lockStore returns a factory with a new store on the driver.
func lockStore(t *testing.T, d state.Driver) (f *state.Factory, name string) {
	t.Helper()
	name = newName()
	return factory(t, d, state.Options{}, state.StoreConfig{Name: name}), name
}

func openLock(t *testing.T, f *state.Factory, store string) *state.Lock {
	t.Helper()
	lock, err := state.OpenLock(t.Context(), f, store, "l", state.LockOptions{TTL: lockTTL})
	require.NoError(t, err)
	return lock
}

// A stallDriver is a driver whose calls can be made to wait, as those of a process that is stopped do: whatever their deadline.
type stallDriver struct {
	state.Driver

	mu      sync.Mutex
	gate    chan struct{} // nil: open
	arrival chan struct{} // closed when a transaction waits
}

func (d *stallDriver) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	e, err := d.Driver.Open(ctx, cfg)
	return &stallEngine{Engine: e, driver: d}, err
}

// stall makes calls wait until resume.
func (d *stallDriver) stall() (resume func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	gate := make(chan struct{})
	d.gate, d.arrival = gate, make(chan struct{})
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.gate = nil
		close(gate)
	}
}

// waiting is closed when a transaction waits.
func (d *stallDriver) waiting() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.arrival
}

func (d *stallDriver) pass(transaction bool) {
	d.mu.Lock()
	gate := d.gate
	if gate != nil && transaction {
		close(d.arrival)
	}
	d.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

type stallEngine struct {
	state.Engine
	driver *stallDriver
}

func (e *stallEngine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	e.driver.pass(false)
	return e.Engine.Apply(ctx, changes)
}

func (e *stallEngine) Transact(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	e.driver.pass(true)
	return e.Engine.Transact(ctx, changes)
}
