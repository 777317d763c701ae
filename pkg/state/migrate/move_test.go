package migrate

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

// openMemory opens a migration between two drivers in memory, or such that are made of them.
func openMemory(t *testing.T, from, to state.Driver, o Options) *Migration {
	t.Helper()
	o.From, o.To = Place{Driver: from, Store: state.StoreConfig{Name: "s"}}, Place{Driver: to, Store: state.StoreConfig{Name: "s"}}
	m, err := Open(t.Context(), o)
	require.NoError(t, err)
	return m
}

// drivers returns two drivers in memory.
func drivers(t *testing.T) (from, to state.Driver) {
	t.Helper()
	from, to = memorystate.New(), memorystate.New()
	t.Cleanup(func() {
		require.NoError(t, from.Close())
		require.NoError(t, to.Close())
	})
	return from, to
}

// put writes to an engine past the store, so that nobody notes or carries it.
func put(t *testing.T, e state.Engine, key, value string) {
	t.Helper()
	outcomes, err := e.Apply(t.Context(), []state.Change{{Key: key, Value: []byte(value), Expiry: state.Never}})
	require.NoError(t, err)
	require.True(t, outcomes[0].Done)
}

func value(t *testing.T, e state.Engine, key string) string {
	t.Helper()
	records, err := e.Get(t.Context(), []string{key})
	require.NoError(t, err)
	return string(records[0].Value)
}

func phaseOf(t *testing.T, m *Migration) Phase {
	t.Helper()
	st, err := m.Status(t.Context())
	require.NoError(t, err)
	require.False(t, st.Closing)
	return st.Phase
}

// onceClosing does something in the pause of a move.
func onceClosing(t *testing.T, s *side, do func(record)) (wait func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			r, _, err := s.record(t.Context())
			if err != nil {
				return
			}
			if r.Closing {
				do(r)
				return
			}
			<-time.After(5 * time.Millisecond)
		}
	}()
	return func() { <-done }
}

// A node that gives up noting what it changes after the mover has looked, and before the pause, keeps the decision from moving.
func TestChangesNobodyNotedKeepTheDecision(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{false, true} {
		t.Run(fmt.Sprint("back ", back), func(t *testing.T) {
			t.Parallel()
			from, to := drivers(t)
			m := openMemory(t, from, to, Options{})
			put(t, m.from.engine, "k", "1")
			_, err := m.Copy(t.Context())
			require.NoError(t, err)
			move, decides, other, before, after := m.CutOver, m.from, m.to, Mirror, Target
			if back {
				require.NoError(t, m.CutOver(t.Context()))
				move = func(ctx context.Context) error { _, err := m.Back(ctx); return err }
				decides, other, before, after = m.to, m.from, Target, Mirror
			}
			wait := onceClosing(t, decides, func(r record) {
				r.Epoch--
				r.Closing = false
				v := &view{record: r, from: m.from, to: m.to}
				if v.soil(t.Context()) == nil {
					put(t, decides.engine, "k", "2") // it writes no note any more
				}
			})
			err = move(t.Context())
			wait()
			require.ErrorIs(t, err, ErrDirty)
			require.Equal(t, before, phaseOf(t, m))
			require.NoError(t, move(t.Context()))
			require.Equal(t, after, phaseOf(t, m))
			require.Equal(t, "2", value(t, other.engine, "k"))
		})
	}
}

// A hooked driver calls functions before what the store's engine does; those of the notes are left alone. A scan ends the caller's context.
type hookedDriver struct {
	state.Driver
	apply func(changes []state.Change) error
	scan  func()
}

func (d *hookedDriver) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	e, err := d.Driver.Open(ctx, cfg)
	if err != nil || cfg.Name != "s" {
		return e, err
	}
	return &hookedEngine{e.(state.Scanner), d}, nil
}

type hookedEngine struct {
	state.Scanner
	driver *hookedDriver
}

func (e *hookedEngine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	if e.driver.apply != nil {
		if err := e.driver.apply(changes); err != nil {
			return nil, err
		}
	}
	return e.Scanner.Apply(ctx, changes)
}

func (e *hookedEngine) Scan(ctx context.Context, cursor string, limit int) ([]string, string, error) {
	if e.driver.scan != nil {
		e.driver.scan()
		<-ctx.Done()
		return nil, "", ctx.Err()
	}
	return e.Scanner.Scan(ctx, cursor, limit)
}

// What says that a comparison is needed is there until one has found nothing different, whatever comes in between.
func TestComparisonIsOwedUntilItWasMade(t *testing.T) {
	t.Parallel()
	begin := func(t *testing.T) (*Migration, *hookedDriver, *hookedDriver) {
		from, to := drivers(t)
		a, b := &hookedDriver{Driver: from}, &hookedDriver{Driver: to}
		m := openMemory(t, a, b, Options{})
		put(t, m.from.engine, "k", "1")
		_, err := m.Copy(t.Context())
		require.NoError(t, err)
		r, err := newestRecord(t.Context(), m)
		require.NoError(t, err)
		put(t, m.from.engine, "k", "2")
		require.NoError(t, (&view{record: r, from: m.from, to: m.to}).soil(t.Context()))
		return m, a, b
	}
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		m, _, to := begin(t)
		to.apply = func([]state.Change) error { return state.ErrTooLarge }
		for range 2 {
			require.ErrorIs(t, m.CutOver(t.Context()), ErrRefused)
			require.Equal(t, Mirror, phaseOf(t, m))
		}
		to.apply = nil
		require.NoError(t, m.CutOver(t.Context()))
		require.Equal(t, "2", value(t, m.to.engine, "k"))
	})
	t.Run("killed while it was made", func(t *testing.T) {
		t.Parallel()
		m, from, _ := begin(t)
		ctx, cancel := context.WithCancel(t.Context())
		from.scan = cancel
		require.ErrorIs(t, m.CutOver(ctx), context.Canceled)
		from.scan = nil
		require.NoError(t, m.CutOver(t.Context()))
		require.Equal(t, "2", value(t, m.to.engine, "k"))
	})
	t.Run("killed as a copy began", func(t *testing.T) {
		t.Parallel()
		m, from, _ := begin(t)
		ctx, cancel := context.WithCancel(t.Context())
		from.scan = cancel
		_, err := m.Copy(ctx)
		require.ErrorIs(t, err, context.Canceled)
		from.scan = nil
		require.ErrorIs(t, m.CutOver(t.Context()), ErrPhase)
		_, err = m.Copy(t.Context())
		require.NoError(t, err)
		st, err := m.Status(t.Context())
		require.NoError(t, err)
		require.False(t, st.Dirty)
		require.NoError(t, m.CutOver(t.Context()))
		require.Equal(t, "2", value(t, m.to.engine, "k"))
	})
}

// The place that the decision is moved to goes away in the pause: the pause ends all the same, and the decision stays.
func TestOtherPlaceGoesAwayInThePause(t *testing.T) {
	t.Parallel()
	from, to := drivers(t)
	away := &awayDriver{Driver: to}
	m := openMemory(t, from, away, Options{MaxPause: time.Second})
	put(t, m.from.engine, "k", "1")
	_, err := m.Copy(t.Context())
	require.NoError(t, err)
	for _, pending := range []bool{false, true} { // without and with something to be carried in the pause
		if pending {
			_, err = m.from.declare(t.Context(), []string{"k"})
			require.NoError(t, err)
		}
		wait := onceClosing(t, m.from, func(record) { away.away.Store(true) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		begun := time.Now()
		err = m.CutOver(ctx)
		cancel()
		wait()
		require.ErrorIs(t, err, ErrPause)
		require.Less(t, time.Since(begun), pause+30*time.Second)
		r, _, err := m.from.record(t.Context())
		require.NoError(t, err)
		require.False(t, r.Closing)
		require.Equal(t, Mirror, r.Phase)
		away.away.Store(false)
	}
	require.Eventually(t, func() bool { // on a busy machine its pause may be too short as well
		err = m.CutOver(t.Context())
		return !errors.Is(err, ErrPause)
	}, time.Minute, time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, Target, phaseOf(t, m))
}

// An answer of the place that decided, which came after another did, is not given.
func TestReadsInThePauseAreNotLate(t *testing.T) {
	t.Parallel()
	from, to := drivers(t)
	m := openMemory(t, from, to, Options{})
	closing := record{Epoch: 2, Phase: Mirror, Closing: true, From: m.from.where, To: m.to.where}
	_, err := m.from.setRecord(t.Context(), closing, "")
	require.NoError(t, err)
	put(t, m.from.engine, "k", "1")
	e := &engine{store: "s", guard: &guard{from: m.from, to: m.to, looking: make(chan struct{}, 1)}}
	require.Equal(t, "1", value(t, e, "k"), "reads go on in the pause")
	_, err = m.to.setRecord(t.Context(), record{Epoch: 3, Phase: Target, From: m.from.where, To: m.to.where}, "")
	require.NoError(t, err)
	put(t, m.to.engine, "k", "2")
	require.Equal(t, "2", value(t, e, "k"))
}

// A store that went there and back is served where it came back to, and can go there again.
func TestThereAndBackAndThereAgain(t *testing.T) {
	t.Parallel()
	from, to := drivers(t)
	there := func(m *Migration) {
		t.Helper()
		_, err := m.Copy(t.Context())
		require.NoError(t, err)
		require.NoError(t, m.CutOver(t.Context()))
		require.NoError(t, m.Finish(t.Context()))
	}
	serve := func(a, b state.Driver) *engine {
		t.Helper()
		m := openMemory(t, a, b, Options{})
		return &engine{store: "s", guard: &guard{from: m.from, to: m.to, looking: make(chan struct{}, 1)}}
	}
	m := openMemory(t, from, to, Options{})
	put(t, m.from.engine, "k", "1")
	there(m)
	stayed := serve(from, to) // a node that is left as it is, although it should not be
	require.Equal(t, "1", value(t, stayed, "k"))

	b := openMemory(t, to, from, Options{Overwrite: true})
	put(t, m.to.engine, "k", "2")
	require.Equal(t, "2", value(t, serve(to, from), "k"))
	_, err := b.Copy(t.Context())
	require.NoError(t, err)
	_, err = stayed.Get(t.Context(), []string{"k"})
	require.ErrorIs(t, err, ErrOtherMigration, "it would not carry what it changes")
	require.NoError(t, b.CutOver(t.Context()))
	require.NoError(t, b.Finish(t.Context()))
	put(t, m.from.engine, "k", "3")
	require.Equal(t, "3", value(t, serve(from, to), "k"), "the old place is where it is again")
	require.Equal(t, "3", value(t, stayed, "k"))
	require.Equal(t, Source, phaseOf(t, m))
	require.ErrorIs(t, m.CutOver(t.Context()), ErrPhase)
	_, err = m.Copy(t.Context())
	require.ErrorIs(t, err, ErrNotEmpty, "what is there now another migration has left")

	there(openMemory(t, from, to, Options{Overwrite: true}))
	require.Equal(t, "3", value(t, serve(from, to), "k"))
	require.Equal(t, "3", value(t, m.to.engine, "k"))
	require.Equal(t, Done, phaseOf(t, m))
	require.Equal(t, Source, phaseOf(t, b))
}

// canceling is an engine that ends a context as it is read, and whose own changes do not end with theirs, like those on their way.
type canceling struct {
	state.Scanner
	cancel func()
}

func (e canceling) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	defer e.cancel()
	return e.Scanner.Get(ctx, keys)
}

type unstoppable struct{ state.Scanner }

func (e unstoppable) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	return e.Scanner.Apply(context.WithoutCancel(ctx), changes)
}

// One that migrates a store and loses its lock between the read and the write leaves no key for good.
func TestLateMoverLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		do   func(ctx context.Context, m *Migration) error
	}{
		{"drain", func(ctx context.Context, m *Migration) error {
			if _, err := m.from.declare(t.Context(), []string{"k"}); err != nil {
				return err
			}
			return m.drain(ctx, m.from)
		}},
		{"copy", func(ctx context.Context, m *Migration) error {
			_, err := m.copy(ctx)
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			from, to := drivers(t)
			m := openMemory(t, from, to, Options{})
			put(t, m.from.engine, "k", "1")
			begun := time.Now()
			ctx, cancel := context.WithCancelCause(t.Context())
			m.from.engine = canceling{m.from.engine, func() { cancel(state.ErrLockLost) }}
			m.to.engine = unstoppable{m.to.engine}
			require.ErrorIs(t, c.do(ctx, m), state.ErrLockLost)
			records, err := m.to.engine.Get(t.Context(), []string{"k"})
			require.NoError(t, err)
			require.True(t, records[0].Found)
			require.WithinRange(t, records[0].ExpiresAt, begun.Add(probation-time.Second), time.Now().Add(probation+time.Second))
		})
	}
}

func newestRecord(ctx context.Context, m *Migration) (record, error) {
	r, _, err := m.current(ctx)
	return r, err
}

// The same between two tables of one database, where the notes of both places and both directions are together.
func TestThereAndBackInOneDatabase(t *testing.T) {
	t.Parallel()
	d, err := sqlitestate.New(sqlitestate.Config{Path: t.TempDir() + "/state.db"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	a, b := Place{Driver: d, Store: state.StoreConfig{Name: "s"}}, Place{Driver: d, Store: state.StoreConfig{Name: "s", TableName: "other"}}
	open := func(from, to Place) *Migration {
		t.Helper()
		m, err := Open(t.Context(), Options{From: from, To: to, Overwrite: true})
		require.NoError(t, err)
		return m
	}
	for i, m := range []*Migration{open(a, b), open(b, a), open(a, b)} {
		written := fmt.Sprint(i)
		put(t, m.from.engine, "k", written)
		_, err := m.Copy(t.Context())
		require.NoError(t, err)
		require.NoError(t, m.CutOver(t.Context()))
		require.NoError(t, m.Finish(t.Context()))
		require.Equal(t, written, value(t, m.to.engine, "k"))
		require.Equal(t, Done, phaseOf(t, m))
		next := open(m.o.To, m.o.From)
		require.Equal(t, Source, phaseOf(t, next))
	}
}

// A move that could not begin has nothing to undo.
func TestOtherPlaceIsAwayBeforeThePause(t *testing.T) {
	t.Parallel()
	from, to := drivers(t)
	away := &awayDriver{Driver: to}
	m := openMemory(t, from, away, Options{MaxPause: 100 * time.Millisecond})
	_, err := m.Copy(t.Context())
	require.NoError(t, err)
	away.away.Store(true)
	_, closed, err := m.close(t.Context(), m.from, Mirror)
	require.ErrorIs(t, err, ErrPause)
	require.Equal(t, err, m.abandon(t.Context(), m.from, Mirror, closed, err))
}
