package sagas_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/sagas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// called is a Caller without the type of its bodies.
type called struct {
	next interface {
		Call(ctx context.Context, target, method, key string, body []byte) ([]byte, error)
	}
}

func (c called) Call(ctx context.Context, target, method, key string, body jsontext.Value) (jsontext.Value, error) {
	return c.next.Call(ctx, target, method, key, body)
}

// calls is a Caller that a test answers for.
type calls struct {
	mu     sync.Mutex
	keys   []string // "method key" in their order
	answer func(ctx context.Context, method, key string) (jsontext.Value, error)
}

func (c *calls) Call(ctx context.Context, _, method, key string, _ jsontext.Value) (jsontext.Value, error) {
	c.mu.Lock()
	c.keys = append(c.keys, method+" "+key)
	answer := c.answer
	c.mu.Unlock()
	if answer == nil {
		return nil, nil
	}
	return answer(ctx, method, key)
}

func (c *calls) set(answer func(ctx context.Context, method, key string) (jsontext.Value, error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

func (c *calls) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.keys...)
}

// world is a bus and a log that outlive engines.
type world struct {
	t      *testing.T
	log    *eventstore.Store
	driver bus.Driver
	calls  *calls
	behind int64 // 0: the engine's own
	parks  bool  // instances of a newer version wait for no one
	lease  time.Duration
	meters metric.MeterProvider // nil: none
	most   int                  // bytes of a body; 0: the bus's own
}

func newWorld(t *testing.T) *world {
	driver := memorybus.New(memorybus.Config{})
	t.Cleanup(func() { require.NoError(t, driver.Close(context.Background())) })
	return &world{t: t, log: memoryevents.New(eventstore.Config{}), driver: driver, calls: &calls{}, lease: time.Second}
}

// running is an engine with its bus.
type running struct {
	*sagas.Engine
	bus  *bus.Bus
	stop func()
}

// start runs an engine, and a stock that does what it is asked unless silent says otherwise.
func (w *world) start(silent bool, all ...*sagas.Saga) *running {
	t := w.t
	b, err := bus.New(w.driver, bus.Config{ImmediateRetries: -1, RetryMaxAttempts: 2, RetryDelay: 10 * time.Millisecond, MaxBodyBytes: w.most})
	require.NoError(t, err)
	engine, err := sagas.New(sagas.Config{Store: w.log, Bus: b, Caller: w.calls, Sagas: all, Partitions: 4, Lease: w.lease, Poll: 5 * time.Millisecond,
		MeterProvider: w.meters})
	require.NoError(t, err)
	if w.behind > 0 {
		engine.SetBehind(w.behind)
	}
	if w.parks {
		engine.SetUpgrade(0)
	}
	if !silent {
		for asked, answer := range map[string]string{"stock.reserve": "stock.reserved", "stock.release": "stock.released"} {
			require.NoError(t, bus.Handle(b, asked, "stock", func(ctx context.Context, e *OrderEvent) error {
				_, err := b.Publish(ctx, answer, &OrderEvent{Base: events.Base{EventID: e.EventID + answer}, Order: e.Order})
				return err
			}, bus.SubscriptionOptions{}))
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { require.NoError(t, b.Run(ctx)) })
	ended.Go(func() { require.NoError(t, engine.Run(ctx)) })
	<-b.Running()
	var once sync.Once
	stop := func() { once.Do(func() { cancel(); ended.Wait(); require.NoError(t, b.Close(context.Background())) }) }
	t.Cleanup(stop)
	return &running{engine, b, stop}
}

func (r *running) publish(t *testing.T, topic, order string) {
	_, err := r.bus.Publish(t.Context(), topic, &OrderEvent{Order: order, Amount: 20})
	require.NoError(t, err)
}

// becomes waits until an instance has a status.
func (r *running) becomes(t *testing.T, key string, status sagas.Status) sagas.Instance {
	t.Helper()
	var i sagas.Instance
	defer func() {
		if t.Failed() {
			t.Log(strings.Join(r.history(t, key), "\n"))
		}
	}()
	require.Eventually(t, func() bool {
		var err error
		i, err = r.Get(t.Context(), "order", key)
		return err == nil && i.Status == status
	}, 20*time.Second, 2*time.Millisecond, "%s does not become %s", key, status)
	return i
}

func built[S any](t *testing.T, d sagas.Definition[S]) *sagas.Saga {
	s, err := d.Build()
	require.NoError(t, err)
	return s
}

func (r *running) history(t *testing.T, key string) (lines []string) {
	for entry, err := range r.History(t.Context(), "order", key) {
		require.NoError(t, err)
		what := entry.Message.Topic
		if what == "" {
			what = string(entry.Message.Kind)
		}
		lines = append(lines, fmt.Sprintf("%s -> %s %s", what, entry.Instance.State, entry.Instance.Status))
	}
	return lines
}

func TestCompletesAndIsListed(t *testing.T) { synctest.Test(t, testCompletesAndIsListed) }

func testCompletesAndIsListed(t *testing.T) {
	w := newWorld(t)
	r := w.start(false, built(t, orders()))
	for n := range 25 {
		r.publish(t, "order.placed", fmt.Sprint("o-", n))
	}
	for n := range 25 {
		r.becomes(t, fmt.Sprint("o-", n), sagas.Completed)
	}
	require.Equal(t, []string{"order.placed -> reserving running", "stock.reserved -> charging running", "answer -> confirmed completed"}, r.history(t, "o-3"))
	require.Len(t, w.calls.seen(), 25)

	found, filter := map[string]bool{}, sagas.Filter{Saga: "order", Status: []sagas.Status{sagas.Completed}, Limit: 10}
	for pages := 1; ; pages++ {
		page, err := r.List(t.Context(), filter)
		require.NoError(t, err)
		for _, i := range page.Instances {
			require.False(t, found[i.Key], "%s is listed twice", i.Key)
			found[i.Key] = true
		}
		if page.Cursor == 0 {
			require.Equal(t, 3, pages)
			break
		}
		filter.Before = page.Cursor
	}
	require.Len(t, found, 25)
	open, err := r.List(t.Context(), sagas.Filter{Saga: "order", Status: []sagas.Status{sagas.Running, sagas.Parked}})
	require.NoError(t, err)
	require.Empty(t, open.Instances)
}

// A message that is delivered twice is taken once; the second is neither an error nor a dead letter.
func TestDuplicates(t *testing.T) {
	w := newWorld(t)
	r := w.start(true, built(t, orders()))
	reserved := &OrderEvent{Base: events.Base{EventID: "0194fdc2-fa2f-7cc0-81d3-ff12045b73c8"}, Order: "o-1"}
	r.publish(t, "order.placed", "o-1")
	r.becomes(t, "o-1", sagas.Running)
	w.calls.set(func(context.Context, string, string) (jsontext.Value, error) { return nil, errors.New("not yet") })
	for range 5 {
		_, err := r.bus.Publish(t.Context(), "stock.reserved", reserved)
		require.NoError(t, err)
	}
	r.publish(t, "order.placed", "o-1") // another start of the same order
	require.Eventually(t, func() bool { return len(w.calls.seen()) > 0 }, 10*time.Second, time.Millisecond)
	r.stop()
	count := 0
	for _, line := range r.history(t, "o-1") {
		if strings.HasPrefix(line, "stock.reserved") || strings.HasPrefix(line, "order.placed") {
			count++
		}
	}
	require.Equal(t, 2, count, "%v", r.history(t, "o-1"))
}

// What no instance waits for becomes what the policies say.
func TestPolicies(t *testing.T) {
	w := newWorld(t)
	d := orders()
	d.Policies.Late = sagas.Park
	r := w.start(false, built(t, d))
	r.publish(t, "stock.reserved", "nobody")
	require.Eventually(t, func() bool {
		list, err := r.bus.ListLetters(t.Context(), bus.LetterFilter{}, bus.LetterPage{})
		return err == nil && len(list.Letters) == 1 && strings.Contains(list.Letters[0].Exception, "no instance has its key")
	}, 10*time.Second, time.Millisecond)
	r.publish(t, "order.placed", "o-1")
	r.becomes(t, "o-1", sagas.Completed)
	r.publish(t, "stock.reserved", "o-1")
	i := r.becomes(t, "o-1", sagas.Parked)
	require.Contains(t, i.Parked.Reason, "the instance has ended")
	i, err := r.Retry(t.Context(), "order", "o-1", sagas.Request{})
	require.NoError(t, err)
	require.Equal(t, sagas.Completed, i.Status)
	_, err = r.Retry(t.Context(), "order", "o-1", sagas.Request{})
	require.ErrorIs(t, err, sagas.ErrNotNow)
	_, err = r.Cancel(t.Context(), "order", "nobody", sagas.Request{})
	require.ErrorIs(t, err, sagas.ErrNoInstance)
	_, err = r.Get(t.Context(), "other", "o-1")
	require.ErrorIs(t, err, sagas.ErrUnknownSaga)
}

// What the broker delivers again is not late: it was taken, and becomes no dead letter.
func TestRedeliveryIsNotLate(t *testing.T) {
	w := newWorld(t)
	d := orders()
	d.Policies.Late = sagas.DeadLetter
	r := w.start(false, built(t, d))
	r.publish(t, "order.placed", "o-1")
	r.becomes(t, "o-1", sagas.Completed)
	var taken string
	for entry, err := range r.History(t.Context(), "order", "o-1") {
		require.NoError(t, err)
		if entry.Message.Topic == "stock.reserved" {
			taken = entry.Message.ID
		}
	}
	for _, id := range []string{taken, "0194fdc2-fa2f-7cc0-81d3-ff12045b73c8"} { // handled one after the other
		_, err := r.bus.PublishWith(t.Context(), "stock.reserved", &OrderEvent{Base: events.Base{EventID: id}, Order: "o-1"}, bus.PublishOptions{PartitionKey: "o-1"})
		require.NoError(t, err)
	}
	var list *bus.LetterList
	require.Eventually(t, func() bool {
		var err error
		list, err = r.bus.ListLetters(t.Context(), bus.LetterFilter{}, bus.LetterPage{})
		return err == nil && len(list.Letters) > 0
	}, 10*time.Second, time.Millisecond)
	require.Len(t, list.Letters, 1)
	require.Equal(t, "0194fdc2-fa2f-7cc0-81d3-ff12045b73c8", list.Letters[0].MessageID)
}

// A refusal has what was done undone; what cannot be undone parks; a person has it tried again.
func TestParksAndIsRetried(t *testing.T) {
	w := newWorld(t)
	w.calls.set(func(_ context.Context, method, _ string) (jsontext.Value, error) {
		return nil, &sagas.Refusal{Status: 409, Detail: "no " + method}
	})
	r := w.start(false, built(t, orders()))
	r.publish(t, "order.placed", "o-1")
	i := r.becomes(t, "o-1", sagas.Parked)
	require.Equal(t, `the undo of "charging" was refused with 409: no refund`, i.Parked.Reason)
	list, err := r.List(t.Context(), sagas.Filter{Saga: "order", Status: []sagas.Status{sagas.Parked}})
	require.NoError(t, err)
	require.Len(t, list.Instances, 1)
	w.calls.set(nil)
	_, err = r.Retry(t.Context(), "order", "o-1", sagas.Request{Actor: "ada"})
	require.NoError(t, err)
	r.becomes(t, "o-1", sagas.Compensated)
	keys := w.calls.seen()
	require.Len(t, keys, 3)
	require.Equal(t, keys[1], keys[2], "the second attempt has the key of the first")
}

func TestCompensateAndCancel(t *testing.T) {
	w := newWorld(t)
	r := w.start(true, built(t, orders()))
	for _, key := range []string{"o-1", "o-2"} {
		r.publish(t, "order.placed", key)
		r.becomes(t, key, sagas.Running)
	}
	_, err := r.Compensate(t.Context(), "order", "o-1", sagas.Request{Note: "changed their mind"})
	require.NoError(t, err)
	r.publish(t, "stock.released", "o-1")
	i := r.becomes(t, "o-1", sagas.Compensated)
	require.Equal(t, "asked for: changed their mind", i.Reason)
	i, err = r.Cancel(t.Context(), "order", "o-2", sagas.Request{Note: "by hand"})
	require.NoError(t, err)
	require.Equal(t, sagas.Cancelled, i.Status)
}

// What waits when a process ends is done by the next one: a timeout, and a call whose answer was not entered, with the key of the first.
func TestGoesOnInAnotherProcess(t *testing.T) { synctest.Test(t, testGoesOnInAnotherProcess) }

func testGoesOnInAnotherProcess(t *testing.T) {
	w := newWorld(t)
	d := orders()
	d.States[0].On[1] = sagas.After[Order](300*time.Millisecond, sagas.Compensating, nil)
	first := w.start(true, built(t, d))
	calling := make(chan struct{})
	w.calls.set(func(ctx context.Context, _, _ string) (jsontext.Value, error) {
		close(calling)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	first.publish(t, "order.placed", "called")
	first.becomes(t, "called", sagas.Running)
	first.publish(t, "stock.reserved", "called")
	<-calling
	first.publish(t, "order.placed", "timed")
	first.becomes(t, "timed", sagas.Running)
	first.stop()
	w.calls.set(nil)
	second := w.start(true, built(t, d))
	second.becomes(t, "called", sagas.Completed)
	second.becomes(t, "timed", sagas.Undoing)
	second.publish(t, "stock.released", "timed")
	i := second.becomes(t, "timed", sagas.Compensated)
	require.Equal(t, `timeout in state "reserving"`, i.Reason)
	keys := w.calls.seen()
	require.Len(t, keys, 2)
	require.Equal(t, keys[0], keys[1])
}

// Instances go on with the version that they began with. Where that is not known they park, and keep what comes.
func TestVersions(t *testing.T) {
	w := newWorld(t)
	w.calls.set(func(context.Context, string, string) (jsontext.Value, error) { return nil, nil })
	one, two := orders(), orders()
	two.Version = 2
	two.States[1].Do = sagas.Call("payment", "charge-by-two", func(o *Order) any { return o })
	first := w.start(true, built(t, one))
	first.publish(t, "order.placed", "old")
	first.becomes(t, "old", sagas.Running)
	first.publish(t, "order.placed", "older")
	first.becomes(t, "older", sagas.Running)
	first.stop()

	both := w.start(true, built(t, one), built(t, two))
	both.publish(t, "stock.reserved", "old")
	both.becomes(t, "old", sagas.Completed)
	both.publish(t, "order.placed", "new")
	both.becomes(t, "new", sagas.Running)
	both.publish(t, "stock.reserved", "new")
	require.Equal(t, 2, both.becomes(t, "new", sagas.Completed).Definition)
	require.Contains(t, w.calls.seen()[0], "charge ")
	require.Contains(t, w.calls.seen()[1], "charge-by-two ")
	both.stop()

	second := w.start(true, built(t, two))
	second.publish(t, "stock.reserved", "older")
	i := second.becomes(t, "older", sagas.Parked)
	require.Contains(t, i.Parked.Reason, "version 1 of the definition is unknown")
	_, err := second.Retry(t.Context(), "order", "older", sagas.Request{})
	require.ErrorIs(t, err, sagas.ErrUnknownVersion)
	second.stop()

	both = w.start(true, built(t, one), built(t, two))
	_, err = both.Retry(t.Context(), "order", "older", sagas.Request{})
	require.NoError(t, err)
	both.becomes(t, "older", sagas.Completed)
}

// While programs are replaced one after another, an instance of a newer version waits for one that has it, with its events, calls and timeouts.
// Where that does not come, it parks.
func TestANewerVersionWaits(t *testing.T) {
	w := newWorld(t)
	one, two := orders(), orders()
	two.Version = 2
	newer := w.start(true, built(t, one), built(t, two))
	newer.publish(t, "order.placed", "o-1")
	newer.becomes(t, "o-1", sagas.Running)
	newer.stop()

	older := w.start(true, built(t, one))
	reserved := sagas.Message{ID: "m-1", Kind: sagas.KindEvent, Topic: "stock.reserved", Body: []byte(`{"order":"o-1"}`)}
	_, err := older.Deliver(t.Context(), "order", "o-1", reserved)
	require.ErrorIs(t, err, sagas.ErrUnknownVersion)
	older.publish(t, "stock.reserved", "o-1")
	older.publish(t, "order.placed", "o-2")
	older.becomes(t, "o-2", sagas.Running)
	older.becomes(t, "o-1", sagas.Running)
	older.stop()
	newer = w.start(true, built(t, one), built(t, two))
	newer.becomes(t, "o-1", sagas.Completed)
	for entry, err := range newer.History(t.Context(), "order", "o-1") {
		require.NoError(t, err)
		require.NotEqual(t, sagas.Parked, entry.Instance.Status)
	}
	newer.publish(t, "order.placed", "o-3")
	newer.becomes(t, "o-3", sagas.Running)
	newer.stop()

	w.parks = true
	older = w.start(true, built(t, one))
	reserved.ID = "m-3"
	_, err = older.Deliver(t.Context(), "order", "o-3", reserved)
	require.NoError(t, err)
	older.becomes(t, "o-3", sagas.Parked)
}

// What an older program publishes for an instance of a newer version is not lost on it, and parks nothing: one that knows the version goes on.
func TestSentByAnOlderProgram(t *testing.T) {
	w := newWorld(t)
	one := orders()
	one.States[0].Undo = sagas.Publish("stock.release", orderEvent)
	two := one
	two.Version = 2
	s1, s2 := built(t, one), built(t, two)
	newer := w.start(true, s1, s2)
	newer.publish(t, "order.placed", "o-1")
	newer.becomes(t, "o-1", sagas.Running)
	newer.stop()
	b, err := bus.New(w.driver, bus.Config{})
	require.NoError(t, err)
	idle, err := sagas.New(sagas.Config{Store: w.log, Bus: b, Caller: w.calls, Sagas: []*sagas.Saga{s1, s2}, Partitions: 4})
	require.NoError(t, err)
	_, err = idle.Compensate(t.Context(), "order", "o-1", sagas.Request{})
	require.NoError(t, err)

	older := w.start(true, s1)
	require.Eventually(t, func() bool {
		i, err := older.Get(t.Context(), "order", "o-1")
		return err == nil && (i.Status == sagas.Parked || i.Work != nil && i.Work.Due != nil)
	}, 20*time.Second, 2*time.Millisecond)
	older.becomes(t, "o-1", sagas.Undoing)
	older.stop()
	newer = w.start(true, s1, s2)
	newer.becomes(t, "o-1", sagas.Compensated)
	published := 0
	for entry, err := range newer.History(t.Context(), "order", "o-1") {
		require.NoError(t, err)
		require.NotEqual(t, sagas.Parked, entry.Instance.Status)
		for _, out := range entry.Publish {
			if out.Topic == "stock.release" {
				published++
			}
		}
	}
	require.Equal(t, 1, published)
}

// Two engines on one log share the work, and each step is done once.
func TestShared(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(false, built(t, orders())), w.start(false, built(t, orders()))
	for n := range 40 {
		r := a
		if n%2 == 0 {
			r = b
		}
		r.publish(t, "order.placed", fmt.Sprint("o-", n))
	}
	for n := range 20 {
		a.becomes(t, fmt.Sprint("o-", n), sagas.Completed)
	}
	b.stop()
	for n := range 40 {
		a.becomes(t, fmt.Sprint("o-", n), sagas.Completed)
	}
	seen := map[string]int{}
	for _, key := range w.calls.seen() {
		seen[key]++
	}
	require.Len(t, seen, 40)
}

// An instance that waits for long is written anew, so that the place from which a start reads can go on.
func TestInstancesAreBroughtForward(t *testing.T) {
	w := newWorld(t)
	w.behind = 10
	r := w.start(false, built(t, orders()))
	_, err := w.log.Append(t.Context(), eventstore.StreamID{Category: "other", ID: "x"}, eventstore.Any, eventstore.Event{Type: "x", Data: jsontext.Value("1")})
	require.NoError(t, err)
	w.calls.set(func(context.Context, string, string) (jsontext.Value, error) {
		return nil, &sagas.Refusal{Status: 400, Detail: "never"}
	})
	r.publish(t, "order.placed", "waits")
	before := r.becomes(t, "waits", sagas.Parked)
	w.calls.set(nil)
	for n := range 20 {
		r.publish(t, "order.placed", fmt.Sprint("o-", n))
	}
	require.Eventually(t, func() bool {
		i, err := r.Get(t.Context(), "order", "waits")
		return err == nil && i.Position > before.Position+10 && i.Status == sagas.Parked
	}, 20*time.Second, 5*time.Millisecond)
	require.Contains(t, r.history(t, "waits"), "kept -> charging parked")
	require.Eventually(t, func() bool {
		marks, err := w.log.Marks(t.Context(), "saga.order.agenda")
		low := int64(1 << 60)
		for _, m := range marks {
			low = min(low, m.Position)
		}
		return err == nil && len(marks) == 4 && low > before.Position
	}, 20*time.Second, 5*time.Millisecond)
}

// Of an event that says more than the saga may keep, only what the saga asks for is in its log.
func TestNarrowedEvents(t *testing.T) {
	type known struct {
		Order string `json:"order"`
	}
	w := newWorld(t)
	saga, err := sagas.Definition[Order]{
		Name: "narrow", Policies: sagas.Policies{Unknown: sagas.Ignore},
		Start: []sagas.On[Order]{sagas.When(sagas.Correlated("order.placed", func(e *known) string { return e.Order }).Narrowed(), "placed",
			func(o *Order, e *known) error { o.ID = e.Order; return nil })},
		States: []sagas.State[Order]{{Name: "placed", End: true}},
	}.Build()
	require.NoError(t, err)
	r := w.start(true, saga)
	defer r.stop()
	_, err = r.bus.Publish(t.Context(), "order.placed", &OrderEvent{Order: "o-1", Amount: 4711})
	require.NoError(t, err)
	require.Eventually(t, func() bool { _, err := r.Get(t.Context(), "narrow", "o-1"); return err == nil }, 20*time.Second, time.Millisecond)
	for e, err := range w.log.ReadCategory(t.Context(), "saga.narrow", eventstore.ReadOptions{}) {
		require.NoError(t, err)
		require.Contains(t, string(e.Data), "o-1")
		require.NotContains(t, string(e.Data), "4711")
	}
}
