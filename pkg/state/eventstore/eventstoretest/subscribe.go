package eventstoretest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// patience is how long is waited for what has to come.
const patience = 20 * time.Second

// A recorder is a handler that keeps what it was given.
type recorder struct {
	mu     sync.Mutex
	events []eventstore.Recorded
	came   chan struct{} // has room for one
	fail   func(e eventstore.Recorded) error
}

func newRecorder() *recorder { return &recorder{came: make(chan struct{}, 1)} }

func (r *recorder) handle(_ context.Context, e eventstore.Recorded) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		if err := r.fail(e); err != nil {
			return err
		}
	}
	r.events = append(r.events, e)
	select {
	case r.came <- struct{}{}:
	default:
	}
	return nil
}

func (r *recorder) seen() []eventstore.Recorded {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]eventstore.Recorded(nil), r.events...)
}

func (r *recorder) failing(fail func(e eventstore.Recorded) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail = fail
}

// wait returns what has come when that are n events.
func (r *recorder) wait(t testing.TB, n int) []eventstore.Recorded {
	t.Helper()
	late := time.After(patience)
	for {
		if seen := r.seen(); len(seen) >= n {
			return seen
		}
		select {
		case <-r.came:
		case <-late:
			require.Failf(t, "too few events", "%d of %d came", len(r.seen()), n)
		}
	}
}

func subscribe(t testing.TB, s *eventstore.Store, cfg eventstore.SubscriptionConfig) *eventstore.Subscription {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "sub"
	}
	if cfg.Poll == 0 {
		cfg.Poll = 10 * time.Millisecond
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = time.Millisecond
	}
	sub, err := s.Subscribe(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sub.Close(context.WithoutCancel(t.Context()))) })
	return sub
}

// A consumer whose lease has ended, and whose part another has, changes nothing any more.
func leasesAreFenced(t *testing.T, open Open) {
	engine := open(t, eventstore.Config{}).Engine()
	ctx := t.Context()
	claim := eventstore.Claim{Name: "sub", Part: 1, Parts: 2, From: 7, Consumer: "a", Lives: time.Minute}
	first, claimed, err := engine.Claim(ctx, claim)
	require.NoError(t, err)
	require.True(t, claimed)
	require.EqualValues(t, 7, first.Position)
	require.NoError(t, engine.Advance(ctx, first, eventstore.Advance{Entered: 7, Position: 8}, nil))

	other := claim
	other.Consumer, other.From, other.Lives = "b", 0, time.Minute
	_, claimed, err = engine.Claim(ctx, other)
	require.NoError(t, err)
	require.False(t, claimed, "the first one has it")
	brief := first
	brief.Lives = time.Millisecond
	require.NoError(t, engine.Renew(ctx, brief))
	var second eventstore.Lease
	require.Eventually(t, func() bool { // when that one's time is over
		second, claimed, err = engine.Claim(ctx, other)
		return claimed && err == nil
	}, patience, 10*time.Millisecond)
	require.EqualValues(t, 8, second.Position)
	require.Greater(t, second.Token, first.Token)

	late := eventstore.Parked{Stream: stream("late"), Part: 1, Version: 1}
	require.ErrorIs(t, engine.Renew(ctx, first), eventstore.ErrLeaseLost)
	require.ErrorIs(t, engine.Advance(ctx, first, eventstore.Advance{Entered: 8, Position: 9}, nil), eventstore.ErrLeaseLost)
	require.ErrorIs(t, engine.Park(ctx, first, late), eventstore.ErrLeaseLost)
	require.ErrorIs(t, engine.Replayed(ctx, first, late.Stream, 2, false, nil), eventstore.ErrLeaseLost)
	parked, err := engine.Parked(ctx, "sub")
	require.NoError(t, err)
	require.Empty(t, parked)
	require.NoError(t, engine.Renew(ctx, second))
	require.ErrorIs(t, engine.Advance(ctx, second, eventstore.Advance{Entered: 7, Position: 9}, nil), eventstore.ErrLeaseLost, "it is elsewhere")
	marks, err := engine.Marks(ctx, "sub")
	require.NoError(t, err)
	require.Len(t, marks, 1)
	require.EqualValues(t, 8, marks[0].Position)
	require.Equal(t, "b", marks[0].Consumer)

	other.Parts = 3
	_, _, err = engine.Claim(ctx, other)
	require.ErrorIs(t, err, state.ErrInvalid, "partitions are not changed")
	require.NoError(t, engine.Yield(ctx, second))
	require.ErrorIs(t, engine.Renew(ctx, second), eventstore.ErrLeaseLost)
	_, claimed, err = engine.Claim(ctx, claim)
	require.NoError(t, err)
	require.True(t, claimed, "it was given up")
}

func catchUpThenLive(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	const before, live = 1100, 50
	for n := 0; n < before; n += 550 {
		events := make([]eventstore.Event, 550)
		for i := range events {
			events[i] = event("x")
		}
		mustAppend(t, s, stream("a"), eventstore.Any, events...)
	}
	r := newRecorder()
	subscribe(t, s, eventstore.SubscriptionConfig{Handle: r.handle, Poll: time.Hour}) // it is told of what is appended
	r.wait(t, before)
	for i := range live {
		mustAppend(t, s, stream(strconv.Itoa(i%3)), eventstore.Any, event("x"))
		r.wait(t, before+i+1)
	}
	require.Equal(t, CheckOrder(t, s), r.seen(), "every event, once, in order")
}

func goesOn(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	for i := range 10 {
		mustAppend(t, s, stream("a"), eventstore.Expected(i), event("x"))
	}
	r := newRecorder()
	first := subscribe(t, s, eventstore.SubscriptionConfig{Handle: r.handle, From: 3})
	require.Equal(t, []int64{4, 5, 6, 7, 8, 9, 10}, positions(r.wait(t, 7)))
	require.NoError(t, first.Close(t.Context()))
	require.NoError(t, first.Close(t.Context()), "twice")
	marks, err := s.Marks(t.Context(), "sub")
	require.NoError(t, err)
	require.Equal(t, []eventstore.Mark{{Part: 0, Parts: 1, Position: 10}}, marks)

	mustAppend(t, s, stream("a"), eventstore.Any, event("x"))
	subscribe(t, s, eventstore.SubscriptionConfig{Handle: r.handle})
	require.Equal(t, []int64{4, 5, 6, 7, 8, 9, 10, 11}, positions(r.wait(t, 8)), "nothing again")
	other := newRecorder()
	subscribe(t, s, eventstore.SubscriptionConfig{Name: "another", Handle: other.handle})
	other.wait(t, 11)
}

func partsOfTheLog(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	ofCategory, ofStream := newRecorder(), newRecorder()
	subscribe(t, s, eventstore.SubscriptionConfig{Name: "category", Category: "other", Handle: ofCategory.handle})
	one := subscribe(t, s, eventstore.SubscriptionConfig{Name: "stream", Stream: stream("a"), Handle: ofStream.handle})
	for range 3 {
		mustAppend(t, s, stream("b"), eventstore.Any, event("x"))
		mustAppend(t, s, stream("a"), eventstore.Any, event("x"))
		mustAppend(t, s, eventstore.StreamID{Category: "other", ID: "a"}, eventstore.Any, event("x"))
	}
	require.Equal(t, []int64{3, 6, 9}, positions(ofCategory.wait(t, 3)))
	require.Equal(t, []int64{2, 5, 8}, positions(ofStream.wait(t, 3)))
	require.NoError(t, one.Close(t.Context()))
	mustAppend(t, s, stream("a"), eventstore.Any, event("x"))
	subscribe(t, s, eventstore.SubscriptionConfig{Name: "stream", Stream: stream("a"), Handle: ofStream.handle})
	require.Equal(t, []int64{2, 5, 8, 10}, positions(ofStream.wait(t, 4)))
}

func badSubscriptions(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	handle := newRecorder().handle
	for name, cfg := range map[string]eventstore.SubscriptionConfig{
		"no name":           {Handle: handle},
		"no handler":        {Name: "sub"},
		"two scopes":        {Name: "sub", Handle: handle, Category: "a", Stream: stream("a")},
		"odd category":      {Name: "sub", Handle: handle, Category: "A"},
		"half a stream":     {Name: "sub", Handle: handle, Stream: eventstore.StreamID{ID: "a"}},
		"negative":          {Name: "sub", Handle: handle, From: -1},
		"a short lease":     {Name: "sub", Handle: handle, Lease: time.Millisecond},
		"a million of them": {Name: "sub", Handle: handle, Partitions: 1e6},
	} {
		_, err := s.Subscribe(cfg)
		require.ErrorIs(t, err, state.ErrInvalid, name)
	}
	require.ErrorIs(t, s.Unpark(t.Context(), "sub", stream("a"), false), state.ErrNotFound)
}

// Two consumers share the streams: each event is handled once, those of a stream in order. When one leaves, the other has all.
func sharedByStream(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	both := newRecorder()
	var mu sync.Mutex
	by := map[string]map[eventstore.StreamID]bool{}
	config := func(name string) eventstore.SubscriptionConfig {
		by[name] = map[eventstore.StreamID]bool{}
		return eventstore.SubscriptionConfig{Partitions: 4, Lease: 3 * time.Second, Handle: func(ctx context.Context, e eventstore.Recorded) error {
			mu.Lock()
			by[name][e.Stream] = true
			mu.Unlock()
			return both.handle(ctx, e)
		}}
	}
	a, b := config("a"), config("b")
	first := subscribe(t, s, a)
	subscribe(t, s, b)
	shared := func() bool {
		marks, err := s.Marks(t.Context(), "sub")
		held := map[string]int{}
		for _, m := range marks {
			if m.Consumer != "" {
				held[m.Consumer]++
			}
		}
		for _, n := range held {
			if n != 2 {
				return false
			}
		}
		return err == nil && len(held) == 2
	}
	require.Eventually(t, shared, patience, 10*time.Millisecond, "two partitions each")
	const streams, each = 12, 8
	for range each {
		for i := range streams {
			mustAppend(t, s, stream(strconv.Itoa(i)), eventstore.Any, event("x"))
		}
	}
	both.wait(t, streams*each)
	mu.Lock()
	require.NotEmpty(t, by["a"])
	require.NotEmpty(t, by["b"])
	for id := range by["a"] {
		require.False(t, by["b"][id], "stream %s was handled by both", id)
	}
	mu.Unlock()
	require.NoError(t, first.Close(t.Context()))
	for i := range streams {
		mustAppend(t, s, stream(strconv.Itoa(i)), eventstore.Any, event("x"))
	}
	seen := both.wait(t, streams*(each+1))
	require.Len(t, seen, streams*(each+1))
	versions := map[eventstore.StreamID]int64{}
	for _, e := range seen {
		versions[e.Stream]++
		require.Equal(t, versions[e.Stream], e.Version, "stream %s is out of order", e.Stream)
	}
}

// A consumer that cannot renew its lease loses its part to another, its handler is told, and what it did last is done again.
func takenOver(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	engine := &cutOff{unrenewed: unrenewed{Engine: s.Engine()}}
	stuck := eventstore.New(engine, eventstore.Config{})
	mustAppend(t, s, stream("a"), 0, event("1"), event("2"))
	begun, told := make(chan struct{}), make(chan error, 1)
	late := subscribe(t, stuck, eventstore.SubscriptionConfig{Lease: 200 * time.Millisecond, Handle: func(ctx context.Context, e eventstore.Recorded) error {
		if e.Version == 1 {
			engine.cut.Store(true)
			close(begun)
			<-ctx.Done()
			told <- context.Cause(ctx)
		}
		return nil // it believes that it has handled it
	}})
	<-begun
	r := newRecorder()
	subscribe(t, s, eventstore.SubscriptionConfig{Handle: r.handle})
	require.Equal(t, []int64{1, 2}, positions(r.wait(t, 2)))
	require.ErrorIs(t, <-told, eventstore.ErrLeaseLost)
	require.NoError(t, late.Close(t.Context()))
	mustAppend(t, s, stream("a"), 2, event("3"))
	require.Equal(t, []int64{1, 2, 3}, positions(r.wait(t, 3)))
}

// unrenewed is the engine of a process whose renewals do not arrive.
type unrenewed struct{ eventstore.Engine }

func (u *unrenewed) Renew(context.Context, eventstore.Lease) error { return errCutOff }

var errCutOff = fmt.Errorf("%w: it is cut off", state.ErrUnavailable)

// cutOff is one that finds no way back either, once it is cut off.
type cutOff struct {
	unrenewed
	cut atomic.Bool
}

func (c *cutOff) Claim(ctx context.Context, claim eventstore.Claim) (eventstore.Lease, bool, error) {
	if c.cut.Load() {
		return eventstore.Lease{}, false, errCutOff
	}
	return c.Engine.Claim(ctx, claim)
}

func (c *cutOff) Enlist(ctx context.Context, name, consumer string, lives time.Duration) (int, error) {
	if c.cut.Load() {
		return 0, errCutOff
	}
	return c.Engine.Enlist(ctx, name, consumer, lives)
}
