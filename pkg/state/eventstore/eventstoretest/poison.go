package eventstoretest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// of returns the versions of one stream, in the order in which they came.
func of(events []eventstore.Recorded, id string) (versions []int64) {
	for _, e := range events {
		if e.Stream.ID == id {
			versions = append(versions, e.Version)
		}
	}
	return versions
}

// An event that cannot be handled stops its stream and no other; a released stream goes on where it stopped, in order, with nothing left out.
func poisonParks(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	r := newRecorder()
	attempts := 0
	poison := func(version int64) func(e eventstore.Recorded) error {
		return func(e eventstore.Recorded) error {
			if e.Stream.ID != "bad" || e.Version != version {
				return nil
			}
			if attempts++; attempts == 2 {
				panic("it has a mind of its own")
			}
			return errors.New("not to be handled \xff " + strings.Repeat("…", 700)) // a byte that is no letter, and letters of three bytes, so that one is cut
		}
	}
	r.fail = poison(2)
	config := eventstore.SubscriptionConfig{Handle: r.handle, Attempts: 3}
	sub := subscribe(t, s, config)
	for range 3 {
		mustAppend(t, s, stream("bad"), eventstore.Any, event("x"))
		mustAppend(t, s, stream("good"), eventstore.Any, event("x"))
	}
	seen := r.wait(t, 4)
	require.Equal(t, []int64{1, 2, 3}, of(seen, "good"))
	require.Equal(t, []int64{1}, of(seen, "bad"))
	parked := func(t require.TestingT) []eventstore.Parked {
		all, err := s.Parked(context.Background(), "sub")
		require.NoError(t, err)
		return all
	}
	require.Len(t, parked(t), 1)
	p := parked(t)[0]
	require.Equal(t, stream("bad"), p.Stream)
	require.EqualValues(t, 2, p.Version)
	require.Contains(t, p.Failure, "not to be handled \uFFFD …")
	require.True(t, utf8.ValidString(p.Failure), "it is to be shown as JSON")
	require.Greater(t, len(p.Failure), 900)
	require.WithinDuration(t, time.Now(), p.At, time.Minute)
	require.False(t, p.Released)
	r.mu.Lock()
	require.Equal(t, 3, attempts)
	r.mu.Unlock()

	// It stays parked over a restart, and one that fails again too.
	require.NoError(t, sub.Close(t.Context()))
	subscribe(t, s, config)
	mustAppend(t, s, stream("bad"), eventstore.Any, event("x"))
	mustAppend(t, s, stream("good"), eventstore.Any, event("x"))
	require.Equal(t, []int64{1}, of(r.wait(t, 5), "bad"))
	r.failing(poison(3))
	require.NoError(t, s.Unpark(t.Context(), "sub", stream("bad"), false))
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		all := parked(c)
		require.Len(c, all, 1)
		require.EqualValues(c, 3, all[0].Version)
		require.False(c, all[0].Released)
	}, patience, 10*time.Millisecond)
	require.Equal(t, []int64{1, 2}, of(r.seen(), "bad"))

	// What cannot be handled at all is skipped.
	require.NoError(t, s.Unpark(t.Context(), "sub", stream("bad"), true))
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.Empty(c, parked(c)) }, patience, 10*time.Millisecond)
	require.Equal(t, []int64{1, 2, 4}, of(r.seen(), "bad"))
	mustAppend(t, s, stream("bad"), eventstore.Any, event("x"))
	require.Equal(t, []int64{1, 2, 4, 5}, of(r.wait(t, 8), "bad"))
	require.Equal(t, []int64{1, 2, 3, 4}, of(r.seen(), "good"))
}

// A stream that is released before the position of its partition has come to it, as after a crash, is handled once.
func releasedAhead(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	bad := event("x")
	bad.ID = uuid.NewString()
	mustAppend(t, s, stream("a"), eventstore.NoStream, event("x"), bad, event("x"))
	lease, claimed, err := s.Engine().Claim(t.Context(), eventstore.Claim{Name: "sub", Parts: 1, Consumer: "crashed", Lives: time.Minute})
	require.NoError(t, err)
	require.True(t, claimed)
	require.NoError(t, s.Engine().Park(t.Context(), lease, eventstore.Parked{Stream: stream("a"), Version: 2, EventID: bad.ID}))
	require.NoError(t, s.Engine().Yield(t.Context(), lease))
	require.NoError(t, s.Unpark(t.Context(), "sub", stream("a"), false))
	r := newRecorder()
	subscribe(t, s, eventstore.SubscriptionConfig{Handle: r.handle})
	mustAppend(t, s, stream("a"), 3, event("x"))
	r.wait(t, 4)
	require.Eventually(t, func() bool {
		marks, err := s.Marks(t.Context(), "sub")
		return err == nil && marks[0].Position == 4
	}, patience, 10*time.Millisecond)
	require.Equal(t, []int64{1, 2, 3, 4}, positions(r.seen()))
	parked, err := s.Parked(t.Context(), "sub")
	require.NoError(t, err)
	require.Empty(t, parked)
}

// halfway is the engine of a process that is killed before it enters that it has come behind a position.
type halfway struct {
	eventstore.Engine
	position int64
	lease    atomic.Pointer[eventstore.Lease]
}

func (h *halfway) Claim(ctx context.Context, c eventstore.Claim) (eventstore.Lease, bool, error) {
	lease, claimed, err := h.Engine.Claim(ctx, c)
	if claimed {
		h.lease.Store(&lease)
	}
	return lease, claimed, err
}

func (h *halfway) Advance(ctx context.Context, l eventstore.Lease, to eventstore.Advance, within func(tx *sql.Tx) error) error {
	if to.Position > h.position {
		return fmt.Errorf("%w: the process is killed", state.ErrUnavailable)
	}
	return h.Engine.Advance(ctx, l, to, within)
}

// A stream is parked, events behind it are handled, and the consumer is killed before it has entered that. Released before the next one has come, the
// stream's event is handled as one that is late; skipped, it does not come again.
func releasedWhileNobodyFollows(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	mustAppend(t, s, stream("a"), eventstore.NoStream, event("x"), event("poison"), event("x"))
	mustAppend(t, s, stream("b"), eventstore.NoStream, event("x"), event("x"))
	for _, skip := range []bool{false, true} {
		name := fmt.Sprintf("skip %t", skip)
		engine := &halfway{Engine: s.Engine(), position: 2}
		behind := make(chan struct{}, 1000)
		killed := subscribe(t, eventstore.New(engine, eventstore.Config{}), eventstore.SubscriptionConfig{Name: name, HandleBatch: func(_ context.Context, events []eventstore.Recorded) error {
			for _, e := range events {
				if e.Type == "poison" {
					return eventstore.ErrPoison
				}
			}
			if events[0].Position > 3 {
				behind <- struct{}{}
			}
			return nil
		}})
		<-behind
		require.NoError(t, killed.Close(t.Context()))
		require.NoError(t, s.Engine().Yield(t.Context(), *engine.lease.Load()))
		require.NoError(t, s.Unpark(t.Context(), name, stream("a"), skip))

		r := newRecorder()
		late := map[int64]bool{}
		subscribe(t, s, eventstore.SubscriptionConfig{Name: name, Handle: func(ctx context.Context, e eventstore.Recorded) error {
			late[e.Position] = eventstore.Released(ctx)
			return r.handle(ctx, e)
		}})
		want := map[int64]bool{2: true, 3: false, 4: false, 5: false}
		if skip {
			delete(want, 2)
		}
		r.wait(t, len(want))
		require.Eventually(t, func() bool {
			marks, err := s.Marks(t.Context(), name)
			return err == nil && marks[0].Position == 5
		}, patience, 10*time.Millisecond)
		r.mu.Lock()
		require.Equal(t, want, late)
		r.mu.Unlock()
	}
}

// While what a handler needs is away, its events wait, however long.
func awayDoesNotPark(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	r := newRecorder()
	tries := 0
	r.fail = func(eventstore.Recorded) error {
		if tries++; tries < 20 {
			return fmt.Errorf("%w: for now", state.ErrUnavailable)
		}
		return nil
	}
	subscribe(t, s, eventstore.SubscriptionConfig{Handle: r.handle, Attempts: 2, Backoff: 100 * time.Microsecond})
	mustAppend(t, s, stream("a"), eventstore.Any, event("x"), event("y"))
	require.Equal(t, []int64{1, 2}, positions(r.wait(t, 2)))
	all, err := s.Parked(t.Context(), "sub")
	require.NoError(t, err)
	require.Empty(t, all)
}

// The metrics tell how far behind a subscription is, and what it has done.
func figures(t *testing.T, open Open) {
	reader := metric.NewManualReader()
	s := open(t, eventstore.Config{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))})
	r := newRecorder()
	entered, release := make(chan struct{}, 10), make(chan struct{})
	r.fail = func(e eventstore.Recorded) error {
		if e.Stream.ID == "bad" {
			return errors.New("no")
		}
		entered <- struct{}{}
		<-release
		return nil
	}
	mustAppend(t, s, stream("bad"), eventstore.Any, event("x"), event("x"))
	mustAppend(t, s, stream("good"), eventstore.Any, event("x"), event("x"), event("x"))
	subscribe(t, s, eventstore.SubscriptionConfig{Handle: r.handle, Attempts: 2})
	<-entered
	got := collected(t, reader)
	require.InDelta(t, 5, got["bannou.events.subscription.lag"], 0)
	require.Greater(t, got["bannou.events.subscription.age"], 0.0)
	require.InDelta(t, 2, got["bannou.events.subscription.failed"], 0)
	require.InDelta(t, 1, got["bannou.events.subscription.skipped"], 0)
	close(release)
	r.wait(t, 3)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		got := collected(c, reader)
		require.Zero(c, got["bannou.events.subscription.lag"])
		require.Zero(c, got["bannou.events.subscription.age"])
		require.InDelta(c, 3, got["bannou.events.subscription.handled"], 0)
	}, patience, 10*time.Millisecond)
}

func collected(t require.TestingT, reader metric.Reader) map[string]float64 {
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(context.Background(), &all))
	values := map[string]float64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				values[m.Name] = float64(data.DataPoints[0].Value)
			case metricdata.Gauge[int64]:
				values[m.Name] = float64(data.DataPoints[0].Value)
			case metricdata.Gauge[float64]:
				values[m.Name] = data.DataPoints[0].Value
			}
		}
	}
	return values
}
