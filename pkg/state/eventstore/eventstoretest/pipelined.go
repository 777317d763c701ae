package eventstoretest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// An elsewhere is where events are sent that end when the test says so.
type elsewhere struct {
	begun chan eventstore.Recorded
	mu    sync.Mutex
	ends  map[int64]chan error // by position
	over  chan struct{}        // closed with the test
}

func newElsewhere() *elsewhere {
	return &elsewhere{begun: make(chan eventstore.Recorded, 10_000), ends: map[int64]chan error{}, over: make(chan struct{})}
}

func (l *elsewhere) end(position int64) chan error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ends[position] == nil {
		l.ends[position] = make(chan error, 10)
	}
	return l.ends[position]
}

func (l *elsewhere) begin(ctx context.Context, e eventstore.Recorded) func() error {
	l.begun <- e
	return func() error {
		select {
		case err := <-l.end(e.Position):
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.over:
			return eventstore.ErrPoison
		}
	}
}

// subscribe has the events of a log begun here.
func (l *elsewhere) subscribe(t testing.TB, s *eventstore.Store, cfg eventstore.SubscriptionConfig) *eventstore.Subscription {
	t.Helper()
	cfg.Begin = l.begin
	sub := subscribe(t, s, cfg)
	t.Cleanup(func() { close(l.over) }) // before it is closed, which waits
	return sub
}

// next is the event that is begun next.
func (l *elsewhere) next(t testing.TB) int64 {
	t.Helper()
	select {
	case e := <-l.begun:
		return e.Position
	case <-time.After(patience):
		require.FailNow(t, "no event is begun")
		return 0
	}
}

// Events are begun before those before them have ended, but of one stream one after the other. The position stays before what has not ended.
func manyUnderWay(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	mustAppend(t, s, stream("a"), 0, event("1"), event("2"), event("3"))
	mustAppend(t, s, stream("b"), 0, event("4"))
	mustAppend(t, s, stream("c"), 0, event("5"), event("6"))
	l := newElsewhere()
	config := eventstore.SubscriptionConfig{Batch: 1}
	sub := l.subscribe(t, s, config)
	require.Equal(t, []int64{1, 4, 5}, []int64{l.next(t), l.next(t), l.next(t)}, "one of each stream")
	l.end(4) <- nil
	l.end(1) <- nil
	require.EqualValues(t, 2, l.next(t))
	mark := func(t require.TestingT) int64 {
		marks, err := s.Marks(context.Background(), "sub")
		require.NoError(t, err)
		return marks[0].Position
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.EqualValues(c, 1, mark(c)) }, patience, 10*time.Millisecond, "4 has ended, but not 2 and 3")
	l.end(5) <- nil
	l.end(2) <- nil
	require.EqualValues(t, 6, l.next(t))
	require.EqualValues(t, 3, l.next(t))
	l.end(6) <- nil
	require.Equal(t, int64(2), mark(t))

	// What has not ended comes again to who goes on.
	for range cap(l.end(3)) { // it may be tried again before the subscription is told to end
		l.end(3) <- fmt.Errorf("%w: not now", state.ErrUnavailable)
	}
	require.NoError(t, sub.Close(t.Context()))
	again := newElsewhere()
	again.subscribe(t, s, config)
	for position := int64(3); position <= 6; position++ {
		again.end(position) <- nil
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.EqualValues(c, 6, mark(c)) }, patience, 10*time.Millisecond)
	require.EqualValues(t, 3, again.next(t))
}

// How many are under way has a bound.
func fewUnderWay(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	for i := range 5 {
		mustAppend(t, s, stream(strconv.Itoa(i)), 0, event("x"))
	}
	l := newElsewhere()
	l.subscribe(t, s, eventstore.SubscriptionConfig{InFlight: 2})
	require.Equal(t, []int64{1, 2}, []int64{l.next(t), l.next(t)})
	l.end(1) <- nil
	require.EqualValues(t, 3, l.next(t))
	require.Empty(t, l.begun)
	for i := range 4 {
		l.end(int64(i + 2)) <- nil
	}
	require.Equal(t, []int64{4, 5}, []int64{l.next(t), l.next(t)})
}

// However sending fails, no event is begun before the one before it in its stream has ended well, or was parked with what follows it; all
// arrive, and what was parked does when it is released.
func beginsInOrder(t *testing.T, open Open) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := open(t, eventstore.Config{})
	const streams, appends = 7, 150
	all := int64(0)
	for range appends {
		events := make([]eventstore.Event, 1+random.IntN(4))
		for i := range events {
			events[i] = event("x")
		}
		all = mustAppend(t, s, stream(strconv.Itoa(random.IntN(streams))), eventstore.Any, events...).Position
	}
	var mu sync.Mutex
	arrived := map[eventstore.StreamID]int64{}
	var wrong []string
	mended := false
	begin := func(_ context.Context, e eventstore.Recorded) func() error {
		mu.Lock()
		defer mu.Unlock()
		if before := arrived[e.Stream]; e.Version > before+1 {
			wrong = append(wrong, fmt.Sprintf("%s version %d was begun after %d", e.Stream, e.Version, before))
		}
		draw := random.IntN(20)
		poison := e.Stream == stream("3") && e.Version == 5
		return func() error {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case poison && !mended:
				return fmt.Errorf("%w: it is poison", eventstore.ErrPoison)
			case draw == 0:
				return fmt.Errorf("%w: not now", state.ErrUnavailable)
			case draw == 1:
				return errors.New("it fails")
			}
			if e.Version > arrived[e.Stream] {
				arrived[e.Stream] = e.Version
			}
			return nil
		}
	}
	subscribe(t, s, eventstore.SubscriptionConfig{Begin: begin, InFlight: 5, Batch: 7, Attempts: 100})
	require.Eventually(t, func() bool {
		marks, err := s.Marks(t.Context(), "sub")
		return err == nil && len(marks) == 1 && marks[0].Position == all
	}, patience, 10*time.Millisecond, "the position is at the end")
	parked, err := s.Parked(t.Context(), "sub")
	require.NoError(t, err)
	require.Len(t, parked, 1)
	require.Equal(t, stream("3"), parked[0].Stream)
	require.EqualValues(t, 5, parked[0].Version)
	mu.Lock()
	require.EqualValues(t, 4, arrived[stream("3")])
	mended = true
	mu.Unlock()
	require.NoError(t, s.Unpark(t.Context(), "sub", stream("3"), false))
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		sum := int64(0)
		for _, version := range arrived {
			sum += version
		}
		return sum == all
	}, patience, 10*time.Millisecond, "all have arrived")
	mu.Lock()
	defer mu.Unlock()
	require.Empty(t, wrong)
}

// A consumer that has lost its lease begins nothing more, whatever ends then of what was under way.
func beginsNothingLate(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	engine := &cutOff{unrenewed: unrenewed{Engine: s.Engine()}}
	stuck := eventstore.New(engine, eventstore.Config{})
	for i := range 4 {
		mustAppend(t, s, stream(strconv.Itoa(i)), 0, event("x"), event("y"))
	}
	begun, told := make(chan int64, 100), make(chan error, 100)
	late := subscribe(t, stuck, eventstore.SubscriptionConfig{Lease: 200 * time.Millisecond, InFlight: 2, Begin: func(ctx context.Context, e eventstore.Recorded) func() error {
		engine.cut.Store(true)
		begun <- e.Position
		return func() error { // it ends well when the lease is over
			<-ctx.Done()
			told <- context.Cause(ctx)
			return nil
		}
	}})
	require.ErrorIs(t, <-told, eventstore.ErrLeaseLost)
	before := len(begun)
	r := newRecorder()
	subscribe(t, s, eventstore.SubscriptionConfig{Begin: func(ctx context.Context, e eventstore.Recorded) func() error {
		return func() error { return r.handle(ctx, e) }
	}})
	require.Len(t, r.wait(t, 8), 8, "all of them, for nothing was entered")
	require.NoError(t, late.Close(t.Context()))
	require.Len(t, begun, before)
	require.LessOrEqual(t, before, 2)
}
