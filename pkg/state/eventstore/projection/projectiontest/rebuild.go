package projectiontest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
)

// writers append until they are stopped, which returns the last position.
func (w *world) writers(t *testing.T, log *eventstore.Store) (stop func() int64) {
	t.Helper()
	var ended atomic.Bool
	var last atomic.Int64
	var running sync.WaitGroup
	for _, id := range []string{"0", "4", "8"} {
		running.Go(func() {
			for !ended.Load() {
				last.Store(max(last.Load(), w.appendTo(t, log, id)))
			}
		})
	}
	once := sync.OnceValue(func() int64 {
		ended.Store(true)
		running.Wait()
		head, err := log.Head(context.WithoutCancel(t.Context()))
		require.NoError(t, err)
		return head
	})
	t.Cleanup(func() { once() })
	return once
}

// A version is built beside the live one while events are appended, and is live in one step. The one before is followed on, can be swapped back
// to, and is dropped with its data.
func rebuilt(t *testing.T, w *world) {
	log := w.events(t)
	w.many(t, log, 300)
	s := w.set(t, log, w.Definition)
	stop := w.writers(t, log)
	built, err := s.Rebuild(t.Context(), "chains", false)
	require.NoError(t, err)
	require.Equal(t, 2, built.Number)
	reaches(t, s, 2, projection.Live, 300)
	last := stop()
	live, err := s.Await(within(t), "chains", last)
	require.NoError(t, err)
	require.Equal(t, built, live)
	reaches(t, s, 1, projection.Standby, last)
	before := projection.Version{Projection: "chains", Number: 1}
	w.requireRight(t, built)
	w.requireRight(t, before)
	require.Equal(t, w.Read(t, before).String(), w.Read(t, built).String(), "byte by byte")

	require.NoError(t, s.Swap(t.Context(), "chains", 1))
	live, err = s.Live(t.Context(), "chains")
	require.NoError(t, err)
	require.Equal(t, before, live)
	require.NoError(t, s.Drop(t.Context(), "chains", 2))
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.Zero(c, status(c, s, 2).Number) }, patience, 20*time.Millisecond)
	if w.DB != nil && w.Definition.Tables != nil {
		_, err = w.DB.ExecContext(t.Context(), in(built, "SELECT 1 FROM {t}"))
		require.Error(t, err, "its table is gone")
	} else {
		require.Empty(t, w.Read(t, built))
	}
	again, err := s.Rebuild(t.Context(), "chains", false)
	require.NoError(t, err)
	require.Equal(t, 3, again.Number, "numbers are not used twice")
	reaches(t, s, 3, projection.Live, last)
	w.requireRight(t, again)
}

// A reader of the live version never sees fewer events than before, whatever is swapped. What is read of a version that was live a moment ago does
// not count: that may be further.
func neverBack(t *testing.T, w *world) {
	if w.Definition.Into != nil {
		t.Skip("rows in a state store may be ahead of the position")
	}
	log := w.events(t)
	w.many(t, log, 200)
	s := w.set(t, log, w.Definition)
	_, err := s.Await(within(t), "chains", 200)
	require.NoError(t, err)
	stop := w.writers(t, log)
	done := make(chan error, 1)
	go func() { done <- rebuildAndWait(context.WithoutCancel(t.Context()), s, 3) }()
	seen := int64(0)
	for running := true; running; {
		select {
		case err := <-done:
			require.NoError(t, err)
			running = false
		default:
		}
		live, err := s.Live(t.Context(), "chains")
		require.NoError(t, err)
		total := w.Read(t, live).total()
		if still, err := s.Live(t.Context(), "chains"); err != nil || still != live {
			continue
		}
		require.GreaterOrEqual(t, total, seen, "%s has fewer events than a reader has seen", live)
		seen = total
	}
	stop()
	live, err := s.Live(t.Context(), "chains")
	require.NoError(t, err)
	require.Equal(t, 4, live.Number)
}

// rebuildAndWait rebuilds several times.
func rebuildAndWait(ctx context.Context, s *projection.Set, times int) error {
	for range times {
		built, err := s.Rebuild(ctx, "chains", false)
		for live := (projection.Version{}); err == nil && live != built; {
			live, err = s.Live(ctx, "chains")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A process that dies in the midst of a rebuild leaves it to the next one, which goes on where it was.
func resumed(t *testing.T, w *world) {
	log := w.events(t)
	last := w.many(t, log, 300)
	first := w.set(t, log, w.Definition)
	_, err := first.Await(within(t), "chains", last)
	require.NoError(t, err)
	stuck := make(chan struct{})
	var once sync.Once
	w.gate.set(func(b projection.Batch) error { // the live one is at the end
		if b.Events[0].Position > 200 {
			once.Do(func() { close(stuck) })
			return state.ErrUnavailable
		}
		return nil
	})
	built, err := first.Rebuild(t.Context(), "chains", false)
	require.NoError(t, err)
	<-stuck
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.GreaterOrEqual(c, status(c, first, 2).Position, int64(150)) }, patience, 20*time.Millisecond)
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, first.Close(dead))
	r := status(t, first, 2)
	require.Equal(t, projection.Building, r.State)
	require.Positive(t, r.Rate)
	require.Positive(t, r.Remaining)
	var early atomic.Bool
	w.gate.set(func(b projection.Batch) error {
		if b.Events[0].Position < 100 {
			early.Store(true)
		}
		return nil
	})
	second := w.set(t, w.Open(t), w.Definition)
	reaches(t, second, 2, projection.Live, last)
	require.False(t, early.Load(), "it did not begin anew")
	w.requireRight(t, built)
}

// A version is dropped by one process while another has a batch of it in work: that leaves no rows behind.
func droppedInWork(t *testing.T, w *world) {
	if w.Definition.Into == nil {
		t.Skip("in tables a batch is done or undone before the command returns")
	}
	log := w.events(t)
	last := w.many(t, log, 300)
	builder := w.set(t, log, w.Definition)
	_, err := builder.Await(within(t), "chains", last)
	require.NoError(t, err)
	inWork, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.gate.set(func(projection.Batch) error { // of the new version: the live one is at the end
		once.Do(func() { close(inWork) })
		<-goOn
		return nil
	})
	built, err := builder.Rebuild(t.Context(), "chains", false)
	require.NoError(t, err)
	<-inWork
	require.NoError(t, builder.Drop(t.Context(), "chains", built.Number))
	other := w.set(t, w.Open(t), w.Definition) // it has looked for what is to be dropped when it is open
	close(goOn)
	require.Eventually(t, func() bool {
		all, err := other.List(t.Context(), "chains")
		return err == nil && len(all) == 1
	}, patience, 20*time.Millisecond, "it is dropped")
	require.NoError(t, builder.Close(t.Context()))
	require.Empty(t, w.Read(t, built))
}

// Two that rebuild at once build one version, and neither does what the other has done.
func twoAtOnce(t *testing.T, w *world) {
	log := w.events(t)
	w.many(t, log, 300)
	first, second := w.set(t, log, w.Definition), w.set(t, w.Open(t), w.Definition)
	stop := w.writers(t, log)
	versions := make(chan projection.Version, 2)
	for _, s := range []*projection.Set{first, second} {
		go func() {
			v, err := s.Rebuild(context.WithoutCancel(t.Context()), "chains", true)
			if err != nil {
				t.Error(err)
			}
			versions <- v
		}()
	}
	built := <-versions
	require.Equal(t, built, <-versions)
	reaches(t, first, built.Number, projection.Ready, 300)
	last := stop()
	reaches(t, second, built.Number, projection.Ready, last)
	require.Eventually(t, func() bool { return second.Swap(t.Context(), "chains", built.Number) == nil }, patience, 20*time.Millisecond)
	live, err := first.Await(within(t), "chains", last)
	require.NoError(t, err)
	require.Equal(t, built, live)
	w.requireRight(t, built)
	reaches(t, first, 1, projection.Standby, last)
	w.requireRight(t, projection.Version{Projection: "chains", Number: 1})
}

// A version that is held back is ready when it has caught up, and swapped to by command, which is refused before that.
func heldBack(t *testing.T, w *world) {
	log := w.events(t)
	last := w.many(t, log, 900)
	s := w.set(t, log, w.Definition)
	_, err := s.Await(within(t), "chains", last)
	require.NoError(t, err)
	w.gate.set(func(b projection.Batch) error {
		if b.Events[0].Position > 200 {
			return state.ErrUnavailable
		}
		return nil
	})
	built, err := s.Rebuild(t.Context(), "chains", true)
	require.NoError(t, err)
	reaches(t, s, 2, projection.Building, 100)
	require.ErrorIs(t, s.Swap(t.Context(), "chains", 2), state.ErrConflict)
	w.gate.set(nil)
	reaches(t, s, 2, projection.Ready, last)
	live, err := s.Live(t.Context(), "chains")
	require.NoError(t, err)
	require.Equal(t, 1, live.Number)
	require.NoError(t, s.Swap(t.Context(), "chains", 2))
	live, err = s.Live(t.Context(), "chains")
	require.NoError(t, err)
	require.Equal(t, built, live)
	w.requireRight(t, built)
}

// Each version is followed with the revision that it was begun with, by who has that.
func revisions(t *testing.T, w *world) {
	log := w.events(t)
	last := w.append(t, log, 30)
	old := w.Definition
	first := w.set(t, log, old)
	_, err := first.Await(within(t), "chains", last)
	require.NoError(t, err)
	require.NoError(t, first.Close(t.Context()))
	newer := w.Definition
	newer.Revision = 2
	second := w.set(t, w.Open(t), newer)
	last = w.append(t, log, 30)
	built, err := second.Rebuild(t.Context(), "chains", true)
	require.NoError(t, err)
	r := reaches(t, second, 2, projection.Ready, last)
	require.Equal(t, 2, r.Revision)
	r = status(t, second, 1)
	require.Equal(t, 1, r.Revision)
	require.False(t, r.Follower, "nobody has its revision")
	require.EqualValues(t, 30, r.Lag)
	require.NoError(t, second.Close(t.Context()))

	both := w.set(t, w.Open(t), old, newer)
	reaches(t, both, 1, projection.Live, last)
	require.NoError(t, both.Swap(t.Context(), "chains", 2))
	reaches(t, both, 1, projection.Standby, last)
	w.requireRight(t, built)
}
