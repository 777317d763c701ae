package sagas_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/sagas"
)

// A start whose handler fails waits in the instance, and a person can have it tried again.
func TestRetryOfAStartThatFailed(t *testing.T) {
	w := newWorld(t)
	d := orders()
	var fails atomic.Bool
	fails.Store(true)
	d.Start[0] = sagas.When(ofOrder("order.placed"), "reserving", func(o *Order, e *OrderEvent) error {
		if fails.Load() {
			return errors.New("not yet")
		}
		o.ID, o.Amount = e.Order, e.Amount
		return nil
	})
	r := w.start(true, built(t, d))
	r.publish(t, "order.placed", "o-1")
	r.becomes(t, "o-1", sagas.Parked)
	fails.Store(false)
	i, err := r.Retry(t.Context(), "order", "o-1", sagas.Request{})
	require.NoError(t, err)
	require.Equal(t, sagas.Running, i.Status)
	require.Equal(t, "reserving", i.State)
	require.Empty(t, i.Kept)
}

// A long reason is cut between letters: half a letter is no JSON.
func TestLongReason(t *testing.T) {
	d := orders()
	d.Start[0] = sagas.When(ofOrder("order.placed"), "reserving", func(o *Order, e *OrderEvent) error {
		return errors.New(e.Order + strings.Repeat("é", 3000))
	})
	s := built(t, d)
	for _, key := range []string{"o", "oo"} {
		turn := s.Decide(sagas.Instance{Saga: "order", Key: key}, sagas.Message{ID: "1", Kind: sagas.KindEvent, Topic: "order.placed", Body: []byte(`{"order":"` + key + `"}`)}, time.Now())
		require.Equal(t, sagas.Parked, turn.Instance.Status)
		_, err := json.Marshal(turn.Instance)
		require.NoError(t, err)
	}
}

// What a call fails with may be anything.
func TestFailureThatIsNoText(t *testing.T) {
	w := newWorld(t)
	w.calls.set(func(context.Context, string, string) (jsontext.Value, error) { return nil, errors.New("\xff") })
	d := orders()
	d.Retry = sagas.Retry{Attempts: 2, Pause: time.Millisecond}
	r := w.start(false, built(t, d))
	r.publish(t, "order.placed", "o-1")
	r.becomes(t, "o-1", sagas.Parked)
}

// An instance whose undo was sent while its version was unknown goes on when it is known again and retried.
func TestSentWhileUnknown(t *testing.T) {
	w := newWorld(t)
	one := orders()
	one.States[0].Undo = sagas.Publish("stock.release", orderEvent)
	two := one
	two.Version = 2
	s1, s2 := built(t, one), built(t, two)
	first := w.start(true, s1)
	first.publish(t, "order.placed", "o-1")
	first.becomes(t, "o-1", sagas.Running)
	first.stop()
	// An engine that knows version 1 enters the request; one that does not publishes.
	driver := w.driver
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	idle, err := sagas.New(sagas.Config{Store: w.log, Bus: b, Caller: w.calls, Sagas: []*sagas.Saga{s1}, Partitions: 4})
	require.NoError(t, err)
	_, err = idle.Compensate(t.Context(), "order", "o-1", sagas.Request{})
	require.NoError(t, err)
	second := w.start(true, s2)
	second.becomes(t, "o-1", sagas.Parked)
	second.stop()
	both := w.start(true, s1, s2)
	_, err = both.Retry(t.Context(), "order", "o-1", sagas.Request{})
	require.NoError(t, err)
	both.becomes(t, "o-1", sagas.Compensated)
}

// What an instance has no room for becomes a dead letter.
func TestTooLarge(t *testing.T) { synctest.Test(t, testTooLarge) }

func testTooLarge(t *testing.T) {
	w := newWorld(t)
	d := orders()
	d.Start[0] = sagas.When(ofOrder("order.placed"), "reserving", func(o *Order, e *OrderEvent) error { o.ID = strings.Repeat("x", 1<<20); return nil })
	r := w.start(true, built(t, d))
	r.publish(t, "order.placed", "o-1")
	r.becomes(t, "o-1", sagas.Parked)
	require.Eventually(t, func() bool {
		list, err := r.bus.ListLetters(t.Context(), bus.LetterFilter{}, bus.LetterPage{})
		return err == nil && len(list.Letters) == 1
	}, 3*time.Second, time.Millisecond)
}

// An event of a state that no broker would take is published by a retry, and undone once. The time of the state begins anew.
func TestRetryOfAnEventThatCouldNotBePublished(t *testing.T) {
	w := newWorld(t)
	w.most = 1000
	d := orders()
	d.States[0].Do = sagas.Publish("stock.reserve", func(o *Order) bus.Event { return &OrderEvent{Order: o.ID + strings.Repeat("x", 1000)} })
	saga := built(t, d)
	small := w.start(true, saga)
	small.publish(t, "order.placed", "o-1")
	i := small.becomes(t, "o-1", sagas.Parked)
	require.Contains(t, i.Parked.Reason, "stock.reserve cannot be published")
	small.stop()

	w.most = 0
	stock, err := bus.New(w.driver, bus.Config{})
	require.NoError(t, err)
	asked := make(chan string, 10)
	for _, topic := range []string{"stock.reserve", "stock.release"} {
		require.NoError(t, bus.Handle(stock, topic, "stock", func(context.Context, *OrderEvent) error { asked <- topic; return nil }, bus.SubscriptionOptions{}))
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- stock.Run(ctx) }()
	t.Cleanup(func() { stop(); require.NoError(t, <-ended); require.NoError(t, stock.Close(context.Background())) })
	<-stock.Running()
	r := w.start(true, saga)
	i, err = r.Retry(t.Context(), "order", "o-1", sagas.Request{})
	require.NoError(t, err)
	require.Equal(t, sagas.Running, i.Status)
	require.NotNil(t, i.Due)
	require.Equal(t, []sagas.Step{{State: "reserving", Entry: 1}}, i.Owed)
	select {
	case topic := <-asked:
		require.Equal(t, "stock.reserve", topic)
	case <-time.After(20 * time.Second):
		require.Fail(t, "stock is not asked for")
	}
	_, err = r.Compensate(t.Context(), "order", "o-1", sagas.Request{})
	require.NoError(t, err)
	select {
	case topic := <-asked:
		require.Equal(t, "stock.release", topic)
	case <-time.After(20 * time.Second):
		require.Fail(t, "stock is not released")
	}
	r.publish(t, "stock.released", "o-1")
	r.becomes(t, "o-1", sagas.Compensated)
}

// An event that has an id of its own could not be published under that of its command.
func TestEventWithAnIDOfItsOwn(t *testing.T) {
	d := orders()
	d.States[0].Do = sagas.Publish("stock.reserve", func(o *Order) bus.Event { return &OrderEvent{Base: events.Base{EventID: "mine"}, Order: o.ID} })
	turn := built(t, d).Decide(sagas.Instance{Saga: "order", Key: "o"}, sagas.Message{ID: "1", Kind: sagas.KindEvent, Topic: "order.placed", Body: []byte(`{"order":"o"}`)}, time.Now())
	require.Equal(t, sagas.Parked, turn.Instance.Status)
	require.Contains(t, turn.Instance.Parked.Reason, "id")
}

// An event that cannot be made parks the instance, and ends no process.
func TestEventThatIsNil(t *testing.T) {
	d := orders()
	d.States[0].Do = sagas.Publish("stock.reserve", func(*Order) bus.Event { return (*OrderEvent)(nil) })
	turn := built(t, d).Decide(sagas.Instance{Saga: "order", Key: "o"}, sagas.Message{ID: "1", Kind: sagas.KindEvent, Topic: "order.placed", Body: []byte(`{"order":"o"}`)}, time.Now())
	require.Equal(t, sagas.Parked, turn.Instance.Status)
	require.Contains(t, turn.Instance.Parked.Reason, "panicked")
}

// slow is a log whose reads give little and take long.
type slow struct{ eventstore.Engine }

func (s slow) Read(ctx context.Context, r eventstore.Range) ([]eventstore.Recorded, bool, error) {
	if r.Category != "" && r.ID == "" && !r.Backward {
		r.Limit = min(r.Limit, 4)
		<-time.After(30 * time.Millisecond)
	}
	return s.Engine.Read(ctx, r)
}

// A start that takes longer than a lease, because there is much to read, keeps the lease meanwhile, and comes to an end.
func TestStartThatTakesLongerThanALease(t *testing.T) {
	synctest.Test(t, testStartThatTakesLongerThanALease)
}

func testStartThatTakesLongerThanALease(t *testing.T) {
	w := newWorld(t)
	w.lease = 300 * time.Millisecond
	d := orders()
	d.States[0].On[1] = sagas.After[Order](time.Second, sagas.Compensating, nil)
	first := w.start(true, built(t, d))
	for n := range 60 {
		first.publish(t, "order.placed", fmt.Sprint("o-", n))
	}
	for n := range 60 {
		first.becomes(t, fmt.Sprint("o-", n), sagas.Running)
	}
	first.stop()
	w.log = eventstore.New(slow{w.log.Engine()}, eventstore.Config{})
	second := w.start(true, built(t, d))
	second.becomes(t, "o-59", sagas.Undoing)
}

// renewals waits until each partition has renewed its lease a few times.
func (w *world) renewals() {
	for range 3 {
		before, err := w.log.Marks(w.t.Context(), "saga.order.agenda")
		require.NoError(w.t, err)
		require.Eventually(w.t, func() bool {
			now, err := w.log.Marks(w.t.Context(), "saga.order.agenda")
			return err == nil && len(now) == 4 && len(before) == 4 && !slices.ContainsFunc(now, func(m eventstore.Mark) bool { return !m.Until.After(before[m.Part].Until) })
		}, 20*time.Second, 2*time.Millisecond)
	}
}

// Where more instances are open than may lie between an instance and the end of the log, they are not written anew for ever.
func TestManyOpenInstancesComeToRest(t *testing.T) { synctest.Test(t, testManyOpenInstancesComeToRest) }

func testManyOpenInstancesComeToRest(t *testing.T) {
	w := newWorld(t)
	w.behind, w.lease = 10, 300*time.Millisecond
	d := orders()
	d.States[0].NoTimeout, d.States[0].On = true, d.States[0].On[:1]
	r := w.start(true, built(t, d))
	for n := range 40 {
		r.publish(t, "order.placed", fmt.Sprint("o-", n))
	}
	for n := range 40 {
		r.becomes(t, fmt.Sprint("o-", n), sagas.Running)
	}
	w.renewals()
	for n := range 40 {
		require.Equal(t, []string{"order.placed -> reserving running"}, r.history(t, fmt.Sprint("o-", n)))
	}
}

// Instances that have ended leave nothing in memory, however far their timeouts were.
func TestTimeoutsOfEndedInstancesAreForgotten(t *testing.T) {
	require.Less(t, sagas.DuesAfter(100_000), 10_000)
}

// counting is a log that counts how often a stream is read.
type counting struct {
	eventstore.Engine
	reads *atomic.Int64
}

func (c counting) Read(ctx context.Context, r eventstore.Range) ([]eventstore.Recorded, bool, error) {
	if r.ID != "" {
		c.reads.Add(1)
	}
	return c.Engine.Read(ctx, r)
}

// A timeout that the definition has no more is not fired without pause.
func TestTimeoutThatTheDefinitionHasLost(t *testing.T) {
	synctest.Test(t, testTimeoutThatTheDefinitionHasLost)
}

func testTimeoutThatTheDefinitionHasLost(t *testing.T) {
	w := newWorld(t)
	w.lease = 300 * time.Millisecond
	d := orders()
	d.States[0].On[1] = sagas.After[Order](time.Second, sagas.Compensating, nil)
	first := w.start(true, built(t, d))
	first.publish(t, "order.placed", "o-1")
	first.becomes(t, "o-1", sagas.Running)
	first.stop()
	d.States[0].NoTimeout, d.States[0].On = true, d.States[0].On[:1]
	var reads atomic.Int64
	w.log = eventstore.New(counting{w.log.Engine(), &reads}, eventstore.Config{})
	w.start(true, built(t, d))
	require.Eventually(t, func() bool { return reads.Load() > 0 }, 20*time.Second, 2*time.Millisecond, "it is due")
	require.Eventually(t, func() bool {
		marks, err := w.log.Marks(t.Context(), "saga.order.agenda")
		return err == nil && len(marks) == 4
	}, 20*time.Second, 2*time.Millisecond)
	w.renewals()
	require.Less(t, reads.Load(), int64(30))
}
