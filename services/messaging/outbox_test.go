package messaging_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/messaging"
)

// absent is a broker that can be taken away: then calls wait for it until their contexts end, as a driver's do.
type absent struct {
	bus.Driver
	away      atomic.Bool
	unsure    atomic.Bool  // takes messages and confirms none
	refuse    atomic.Value // a string: the first message with it in its body is refused
	full      atomic.Value // a string: the topic whose queue takes no more
	published atomic.Int64
}

func (a *absent) Publish(ctx context.Context, m *bus.Message) error {
	if a.unsure.Load() {
		a.published.Add(1)
		return errors.Join(a.Driver.Publish(ctx, m), bus.ErrNotConfirmed)
	}
	if text, _ := a.refuse.Load().(string); text != "" && strings.Contains(string(m.Body), text) {
		a.refuse.Store("")
		return bus.ErrNotConfirmed
	}
	if a.full.Load() == m.RoutingKey {
		<-ctx.Done()
		return fmt.Errorf("%w: %w: %w", bus.ErrNotConfirmed, bus.ErrRefused, ctx.Err())
	}
	for a.away.Load() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", bus.ErrUnavailable, ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
	a.published.Add(1)
	return a.Driver.Publish(ctx, m)
}

// Begin leaves everything to the wait: nobody can rely on more.
func (a *absent) Begin(ctx context.Context, m *bus.Message) func() error {
	return func() error { return a.Publish(ctx, m) }
}

func (a *absent) Ready(ctx context.Context) error {
	if a.away.Load() || a.unsure.Load() {
		return bus.ErrUnavailable
	}
	return a.Driver.Ready(ctx)
}

// spool is a broker that can be taken away, and a file that outlives nodes.
type spool struct {
	driver  *absent
	bus     *bus.Bus
	path    string
	limits  state.OutboxConfig
	arrived chan bus.Received
}

func newSpool(t *testing.T, topic string) *spool {
	t.Helper()
	s := &spool{
		driver: &absent{Driver: memorybus.New(memorybus.Config{})}, path: filepath.Join(t.TempDir(), "state.db"),
		limits:  state.OutboxConfig{Name: "bannou", MaxEntries: 1000, MaxBytes: 1 << 20},
		arrived: make(chan bus.Received, 10_000),
	}
	var err error
	s.bus, err = bus.New(s.driver, bus.Config{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.bus.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ran)
		require.NoError(t, s.driver.Close(ctx))
	})
	_, err = s.bus.SubscribeRaw(t.Context(), topic, func(_ context.Context, r *bus.Received) error {
		s.arrived <- *r
		return nil
	}, bus.SubscriptionOptions{})
	require.NoError(t, err)
	return s
}

// start runs a node on the file.
func (s *spool) start(t *testing.T) *node {
	t.Helper()
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: s.path})
	require.NoError(t, err)
	factory, err := state.NewFactory([]state.StoreConfig{{Name: messaging.SubscriptionStore, Backend: "sqlite"}},
		[]state.Driver{sqlite}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, factory.Close()) })
	box, err := factory.Outbox(t.Context(), "sqlite", s.limits)
	require.NoError(t, err)
	return (&broker{bus: s.bus, factory: factory}).start(t, func(c *messaging.Config) {
		c.Outbox, c.OutboxAfter = box, 50*time.Millisecond
	})
}

func (s *spool) next(t *testing.T) bus.Received {
	t.Helper()
	select {
	case r := <-s.arrived:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("no event arrived")
		return bus.Received{}
	}
}

// arrives reports whether an event with that number is what comes next.
func (s *spool) arrives(n int) bool {
	select {
	case r := <-s.arrived:
		var body struct{ N int }
		return json.Unmarshal(r.Body, &body) == nil && body.N == n
	case <-time.After(10 * time.Second):
		return false
	}
}

func event(topic, key string, n int) string {
	return fmt.Sprintf(`{"topic":%q,"payload":{"n":%d},"options":{"partitionKey":%q,"headers":{"h":"v"},"priority":3}}`, topic, n, key)
}

func number(t *testing.T, r bus.Received) int {
	t.Helper()
	var body struct{ N int }
	require.NoError(t, json.Unmarshal(r.Body, &body))
	return body.N
}

// While the broker is away events are kept; when it is back they arrive as they were published, those of one key in
// their order, and what is published then goes the short way again.
func TestOutboxKeepsWhatTheBrokerCannotTake(t *testing.T) {
	s := newSpool(t, "spooled")
	n := s.start(t)
	direct := func(i int) {
		require.Eventually(t, func() bool { // a publish that takes long is kept, and so is what follows one that is not struck out yet
			_, answer, err := n.ask("/messaging/publish", event("spooled", "a", i))
			return err == nil && s.arrives(i) && answer["messageId"] != nil && answer["queued"] == nil
		}, 20*time.Second, time.Millisecond)
	}
	direct(0)

	s.driver.away.Store(true)
	ids := map[string]bool{}
	for i := 1; i <= 40; i++ {
		answer := n.must("/messaging/publish", event("spooled", []string{"a", "b", ""}[i%3], i))
		require.Equal(t, true, answer["queued"])
		ids[answer["messageId"].(string)] = true
	}
	require.Empty(t, s.arrived)
	s.driver.away.Store(false)
	last := map[string]int{}
	for range 40 {
		r := s.next(t)
		require.True(t, ids[r.MessageID], "the id is the one that was answered")
		delete(ids, r.MessageID)
		require.Equal(t, "v", r.Headers["h"])
		require.Contains(t, string(r.Body), `"eventId":"`+r.MessageID+`"`)
		if key := r.Headers[bus.HeaderPartitionKey]; key != "" {
			require.Greater(t, number(t, r), last[key], "key %s", key)
			last[key] = number(t, r)
		}
	}
	direct(99)
}

// What a process left behind is sent by the next one, and nothing of a key overtakes it.
func TestOutboxIsSentByTheNextProcess(t *testing.T) {
	s := newSpool(t, "left")
	s.driver.away.Store(true)
	first := s.start(t)
	for i := range 5 {
		require.Equal(t, true, first.must("/messaging/publish", event("left", "k", i))["queued"])
	}
	first.stop()
	second := s.start(t)
	require.Equal(t, true, second.must("/messaging/publish", event("left", "k", 5))["queued"])
	s.driver.away.Store(false)
	second.must("/messaging/publish", event("left", "k", 6))
	for i := range 7 {
		require.Equal(t, i, number(t, s.next(t)))
	}
}

// Events of one key, each published when the one before was answered, keep their order while the broker comes and goes.
func TestOutboxKeepsOrderWhileTheBrokerComesAndGoes(t *testing.T) {
	const each, keys = 150, 3
	s := newSpool(t, "restless")
	n := s.start(t)
	var wait sync.WaitGroup
	failed := make(chan string, keys*each)
	for k := range keys {
		wait.Go(func() {
			for i := range each {
				response, err := n.client.Post(n.url+"/messaging/publish", "application/json", strings.NewReader(event("restless", fmt.Sprint(k), i)))
				if err != nil {
					failed <- err.Error()
					return
				}
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
				if response.StatusCode != http.StatusOK {
					failed <- response.Status
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() { wait.Wait(); close(ended) }()
	next := map[string]int{}
	left := keys * each
	for count := 0; left > 0; count++ {
		r := s.next(t)
		key := r.Headers[bus.HeaderPartitionKey]
		switch i := number(t, r); {
		case i == next[key]:
			next[key]++
			left--
		case i > next[key]:
			t.Fatalf("key %s: %d came before %d", key, i, next[key])
		}
		if count%60 == 30 {
			s.driver.away.Store(true)
			time.AfterFunc(100*time.Millisecond, func() { s.driver.away.Store(false) })
		}
	}
	<-ended
	require.Empty(t, failed)
}

// An event that the broker did not confirm is kept under the same id: it may arrive twice, as one event.
func TestOutboxSendsUnconfirmedAgain(t *testing.T) {
	s := newSpool(t, "unsure")
	n := s.start(t)
	s.driver.unsure.Store(true)
	answer := n.must("/messaging/publish", event("unsure", "k", 1))
	require.Equal(t, true, answer["queued"])
	first := s.next(t)
	s.driver.unsure.Store(false)
	second := s.next(t)
	require.Equal(t, answer["messageId"], first.MessageID)
	require.Equal(t, first.MessageID, second.MessageID)
	require.Equal(t, first.Body, second.Body)
}

// A queue that is full is no broker that is away: events for it are kept, and others go to the broker at once.
func TestOutboxOfAFullQueue(t *testing.T) {
	s := newSpool(t, "free")
	n := s.start(t)
	s.driver.full.Store("full")
	require.Equal(t, true, n.must("/messaging/publish", event("full", "", 1))["queued"])
	require.Eventually(t, func() bool { // a publish that takes long is kept
		_, answer, err := n.ask("/messaging/publish", event("free", "", 2))
		return err == nil && s.arrives(2) && answer["messageId"] != nil && answer["queued"] == nil
	}, 20*time.Second, time.Millisecond)
}

// Over its limit the outbox answers 503 and when to come back, and the node is not ready. What it took is all sent.
func TestOutboxHasALimit(t *testing.T) {
	s := newSpool(t, "limited")
	s.limits.MaxEntries = 3
	n := s.start(t)
	s.driver.away.Store(true)
	for i := range 3 {
		require.Equal(t, true, n.must("/messaging/publish", event("limited", "k", i))["queued"])
	}
	response, err := n.client.Post(n.url+"/messaging/publish", "application/json", strings.NewReader(event("limited", "k", 3)))
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	require.NotEmpty(t, response.Header.Get("Retry-After"))
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), `"code":"unavailable"`)
	require.Contains(t, string(body), "full")
	status, ready := n.ready()
	require.Equal(t, http.StatusServiceUnavailable, status, ready)

	s.driver.away.Store(false)
	for i := range 3 {
		require.Equal(t, i, number(t, s.next(t)))
	}
	require.Eventually(t, func() bool { status, _ := n.ready(); return status == http.StatusOK }, 10*time.Second, 5*time.Millisecond)
}

// ready is the node's answer, and 0 where there is none: it is for conditions that are waited for, in which a test may not end.
func (n *node) ready() (int, string) {
	response, err := n.client.Get(n.url + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(body)
}

// While events can be kept the node is ready, and says what waits.
func TestOutboxIsShown(t *testing.T) {
	s := newSpool(t, "shown")
	n := s.start(t)
	s.driver.away.Store(true)
	n.must("/messaging/publish", event("shown", "", 1))
	status, body := n.ready()
	require.Equal(t, http.StatusOK, status, body)
	require.Contains(t, body, `"status":"degraded"`)
	require.Contains(t, body, `"outboxDepth":1`)
	require.Contains(t, body, "the broker is away: 1 events wait")
	s.driver.away.Store(false)
	s.next(t)
	require.Eventually(t, func() bool {
		_, body := n.ready()
		return strings.Contains(body, `"outboxDepth":0`) && strings.Contains(body, `"status":"ready"`)
	}, 10*time.Second, 5*time.Millisecond)
}

// Input that no broker would take is refused as it is when the broker is there.
func TestOutboxKeepsNoRubbish(t *testing.T) {
	s := newSpool(t, "rubbish")
	n := s.start(t)
	s.driver.away.Store(true)
	for _, body := range []string{
		`{"topic":"No Topic","payload":{}}`, `{"topic":"a","payload":[]}`, `{"topic":"a","payload":{"eventId":7}}`,
		`{"topic":"a","payload":{},"options":{"priority":10}}`,
	} {
		status, answer := n.post("/messaging/publish", body)
		require.Equal(t, 400, status, "%s: %v", body, answer)
	}
	_, body := n.ready()
	require.Contains(t, body, `"outboxDepth":0`)
}

// What expired while it waited goes to the dead letters as expired; what nobody would receive, as permanent.
func TestOutboxDeadLetters(t *testing.T) {
	s := newSpool(t, "dead")
	letters, err := s.driver.Subscribe(t.Context(), bus.Queue{Name: "letters", Prefetch: 10,
		Bindings: []bus.Binding{{Exchange: "bannou-dlx", Pattern: "dead-letter.#"}}})
	require.NoError(t, err)
	n := s.start(t)
	s.driver.away.Store(true)
	n.must("/messaging/publish", `{"topic":"dead","payload":{"n":1},"options":{"expiration":1}}`)
	n.must("/messaging/publish", `{"topic":"nobody","payload":{"n":2},"options":{"mandatory":true}}`)
	n.must("/messaging/publish", event("dead", "", 3))
	s.driver.away.Store(false)
	require.Equal(t, 3, number(t, s.next(t)))
	reasons := map[string]string{}
	for range 2 {
		select {
		case d := <-letters.Deliveries():
			reasons[d.Message().Headers[bus.HeaderOriginalTopic]] = d.Message().Headers[bus.HeaderDiscardReason]
			require.NoError(t, d.Ack())
		case <-time.After(10 * time.Second):
			t.Fatalf("a dead letter is missing: %v", reasons)
		}
	}
	require.Equal(t, map[string]string{"dead": bus.DiscardExpired, "nobody": bus.DiscardPermanent}, reasons)
	require.Empty(t, s.arrived)
	require.NoError(t, letters.Close(t.Context()))
}

// A row that no broker takes is set aside, shown, and stands in nobody's way.
func TestOutboxParksPoison(t *testing.T) {
	s := newSpool(t, "poison")
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: s.path})
	require.NoError(t, err)
	box, err := sqlite.OpenOutbox(t.Context(), s.limits)
	require.NoError(t, err)
	require.NoError(t, box.Enqueue(t.Context(), state.OutboxEntry{Key: "k", Topic: "poison", Properties: []byte(`{"contentType":"application/json"}`), Body: []byte("not JSON")}))
	require.NoError(t, sqlite.Close())
	n := s.start(t)
	n.must("/messaging/publish", event("poison", "k", 1))
	require.Equal(t, 1, number(t, s.next(t)))
	require.Eventually(t, func() bool {
		status, body := n.ready()
		return status == http.StatusOK && strings.Contains(body, `"outboxParked":1`) && strings.Contains(body, "1 events cannot be sent")
	}, 10*time.Second, 5*time.Millisecond)

	parked := func() object {
		t.Helper()
		list := n.must("/messaging/outbox/list", `{}`)
		require.EqualValues(t, 1, list["parked"])
		return list["events"].([]any)[0].(object)
	}
	first := parked()
	require.Equal(t, "poison", first["topic"])
	require.Equal(t, "k", first["partitionKey"])
	require.Equal(t, "not JSON", first["body"])
	require.Contains(t, first["reason"], "JSON")
	ids := fmt.Sprintf(`{"ids":[%q]}`, first["id"])
	require.EqualValues(t, 1, n.must("/messaging/outbox/retry", ids)["count"])
	var again object
	require.Eventually(t, func() bool {
		_, list, err := n.ask("/messaging/outbox/list", `{}`)
		events, _ := list["events"].([]any)
		if err != nil || list["parked"] != 1.0 || len(events) != 1 {
			return false
		}
		again, _ = events[0].(object)
		return true
	}, 20*time.Second, 5*time.Millisecond, "no broker takes it still")
	require.Equal(t, first["id"], again["id"])
	require.NotEqual(t, first["parkedAt"], again["parkedAt"])
	require.EqualValues(t, 1, n.must("/messaging/outbox/discard", ids)["count"])
	require.EqualValues(t, 0, n.must("/messaging/outbox/discard", ids)["count"])
	list := n.must("/messaging/outbox/list", `{"limit":1}`)
	require.EqualValues(t, 0, list["parked"])
	require.EqualValues(t, 0, list["waiting"])
	require.Empty(t, list["events"])
	_, body := n.ready()
	require.Contains(t, body, `"status":"ready"`)
}

// One event in the middle of what waits is refused once. Nothing is lost, and who looks at the last arrival of each event
// sees those of a key in order, though many are under way at a time.
func TestOutboxKeepsOrderThroughAFailureInTheMiddle(t *testing.T) {
	const events, refused = 60, 21
	s := newSpool(t, "middle")
	n := s.start(t)
	s.driver.away.Store(true)
	for i := range events {
		require.Equal(t, true, n.must("/messaging/publish", event("middle", []string{"a", "b", ""}[i%3], i))["queued"])
	}
	s.driver.refuse.Store(fmt.Sprintf(`"n":%d`, refused))
	s.driver.away.Store(false)
	require.Eventually(t, func() bool {
		_, body := n.ready()
		return strings.Contains(body, `"outboxDepth":0`)
	}, 10*time.Second, 5*time.Millisecond)
	last, arrivals := map[int]int{}, len(s.arrived)
	for at := range arrivals {
		last[number(t, s.next(t))] = at
	}
	require.Len(t, last, events, "acknowledged and lost")
	for i := range events - 3 {
		if i%3 != 2 {
			require.Less(t, last[i], last[i+3], "event %d, whose successor came before it", i)
		}
	}
	t.Logf("%d events, %d arrived twice", events, arrivals-events)
}

// The trace of the request that published an event is that of the event, however long it waited, and whoever sent it.
func TestOutboxKeepsTheTrace(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	s := newSpool(t, "traced")
	s.driver.away.Store(true)
	first := s.start(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, first.url+"/messaging/publish", strings.NewReader(event("traced", "k", 1)))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("traceparent", parent)
	request.Header.Set("tracestate", "vendor=opaque")
	response, err := first.client.Do(request)
	require.NoError(t, err)
	response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	first.stop()
	s.start(t)
	s.driver.away.Store(false)
	got := s.next(t)
	require.Equal(t, parent, got.Headers[bus.HeaderTraceParent])
	require.Equal(t, "vendor=opaque", got.Headers[bus.HeaderTraceState])
	require.Equal(t, "v", got.Headers["h"])
}
