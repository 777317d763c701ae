package relay_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/services/relay"
)

// openBus returns a bus over a driver, and what arrives on a topic.
func openBus(t *testing.T, driver bus.Driver, topic string) (*bus.Bus, <-chan *bus.Received) {
	t.Helper()
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	life, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(life) })
	t.Cleanup(func() { end(); running.Wait(); require.NoError(t, driver.Close(context.Background())) })
	arrived := make(chan *bus.Received, 100_000)
	_, err = b.SubscribeRaw(t.Context(), topic, func(_ context.Context, r *bus.Received) error {
		arrived <- r
		return nil
	}, bus.SubscriptionOptions{PrefetchCount: 1})
	require.NoError(t, err)
	return b, arrived
}

func startLog(t *testing.T, cfg relay.LogConfig) *relay.Log {
	t.Helper()
	if cfg.Name == "" {
		cfg.Name = "orders"
	}
	cfg.Category = "order"
	l, err := relay.NewLog(cfg)
	require.NoError(t, err)
	require.NoError(t, l.Start(t.Context()))
	stop := sync.OnceFunc(func() { require.NoError(t, l.Stop(context.Background())) })
	t.Cleanup(stop)
	return l
}

func order(id string) eventstore.StreamID { return eventstore.StreamID{Category: "order", ID: id} }

func next(t *testing.T, arrived <-chan *bus.Received) *bus.Received {
	t.Helper()
	select {
	case r := <-arrived:
		return r
	case <-time.After(20 * time.Second):
		require.FailNow(t, "nothing arrives")
		return nil
	}
}

// publish has events of the type "placed" published as they are.
func publish(_ context.Context, e eventstore.Recorded) ([]relay.Message, error) {
	if e.Type != "placed" {
		return nil, nil
	}
	return []relay.Message{{Topic: "order.placed", Type: "OrderPlacedEvent", Body: e.Data}}, nil
}

// What is published says where it comes from; what is not public stays where it is.
func TestLogPublishesWhatIsPublic(t *testing.T) {
	b, arrived := openBus(t, memorybus.New(memorybus.Config{}), "order.placed")
	store := memoryevents.New(eventstore.Config{})
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	id, at := uuid.NewString(), time.Now()
	_, err := store.Append(t.Context(), order("o-1"), 0,
		eventstore.Event{Type: "drafted", Data: jsontext.Value(`{}`)},
		eventstore.Event{ID: id, Type: "placed", Data: jsontext.Value(`{"sum":12.50}`), Metadata: eventstore.Metadata{CausationID: "cause", CorrelationID: "all", Trace: trace}},
		eventstore.Event{Type: "placed", Data: jsontext.Value(`{"timestamp":"2020-01-02T03:04:05Z"}`)},
		eventstore.Event{Type: "placed", Data: jsontext.Value(`{}`)})
	require.NoError(t, err)
	_, err = store.Append(t.Context(), eventstore.StreamID{Category: "other", ID: "x"}, 0, eventstore.Event{Type: "placed", Data: jsontext.Value(`{}`)})
	require.NoError(t, err)
	l := startLog(t, relay.LogConfig{Store: store, Bus: b, Messages: publish})
	r := next(t, arrived)
	var body struct {
		EventID   string    `json:"eventId"`
		Timestamp time.Time `json:"timestamp"`
		Sum       jsontext.Value
	}
	require.NoError(t, json.Unmarshal(r.Body, &body, json.MatchCaseInsensitiveNames(true)))
	require.Equal(t, id, body.EventID)
	require.Equal(t, id, r.MessageID)
	require.Equal(t, "12.50", string(body.Sum))
	require.WithinDuration(t, at, body.Timestamp, time.Minute)
	require.Equal(t, "OrderPlacedEvent", r.Type)
	require.Equal(t, "all", r.CorrelationID)
	require.Equal(t, "cause", r.Headers[bus.HeaderCausationID])
	require.Equal(t, "o-1", r.Headers[bus.HeaderPartitionKey])
	require.Contains(t, r.Headers[bus.HeaderTraceParent], "0af7651916cd43dd8448eb211c80319c")
	require.Contains(t, string(next(t, arrived).Body), "2020-01-02", "it has a time of its own")
	require.Contains(t, string(next(t, arrived).Body), "timestamp")
	require.Eventually(t, func() bool {
		f := l.Figures()
		return l.Ready(t.Context()) == nil && f["relayDepth"] == 0 && f["relayAgeSeconds"] == 0
	}, 20*time.Second, 10*time.Millisecond)
	require.Empty(t, arrived)
}

// Further messages of one event have ids of their own, the same ones each time.
func TestLogPublishesSeveralMessages(t *testing.T) {
	b, arrived := openBus(t, memorybus.New(memorybus.Config{}), "order.#")
	store := memoryevents.New(eventstore.Config{})
	_, err := store.Append(t.Context(), order("o-1"), 0, eventstore.Event{Type: "x", Data: jsontext.Value(`{}`)})
	require.NoError(t, err)
	messages := func(context.Context, eventstore.Recorded) ([]relay.Message, error) {
		return []relay.Message{{Topic: "order.a", Body: jsontext.Value(`{}`)}, {Topic: "order.b", Body: jsontext.Value(`{}`)}, {Topic: "order.c", Body: jsontext.Value(`{}`), ID: "own"}}, nil
	}
	ids := func(name string) (all []string) {
		startLog(t, relay.LogConfig{Name: name, Store: store, Bus: b, Messages: messages})
		for range 3 {
			all = append(all, next(t, arrived).MessageID)
		}
		return all
	}
	first := ids("first")
	require.NotEqual(t, first[0], first[1])
	require.Equal(t, "own", first[2])
	require.Equal(t, first, ids("second"))
}

// What cannot be published, for the service or for the bus, parks its stream, which shows; released, it is published.
func TestLogParksPoison(t *testing.T) {
	b, arrived := openBus(t, memorybus.New(memorybus.Config{}), "order.placed")
	store := memoryevents.New(eventstore.Config{})
	for _, o := range []string{"refused", "odd", "good"} {
		_, err := store.Append(t.Context(), order(o), 0, eventstore.Event{Type: "placed", Data: jsontext.Value(`{"n":1}`)}, eventstore.Event{Type: "placed", Data: jsontext.Value(`{"n":2}`)})
		require.NoError(t, err)
	}
	var mu sync.Mutex
	mended := false
	l := startLog(t, relay.LogConfig{Store: store, Bus: b, Messages: func(ctx context.Context, e eventstore.Recorded) ([]relay.Message, error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case e.Stream.ID == "refused" && !mended:
			return nil, errors.New("no words for this")
		case e.Stream.ID == "odd" && !mended:
			return []relay.Message{{Topic: "order.placed", Body: jsontext.Value(`[]`)}}, nil
		default:
			return publish(ctx, e)
		}
	}})
	for range 2 {
		require.Equal(t, "good", next(t, arrived).Headers[bus.HeaderPartitionKey])
	}
	require.Eventually(t, func() bool {
		err := l.Ready(t.Context())
		return err != nil && l.Figures()["relayParked"] == 2
	}, 20*time.Second, 10*time.Millisecond)
	require.ErrorContains(t, l.Ready(t.Context()), "2 streams of order are parked")
	mu.Lock()
	mended = true
	mu.Unlock()
	for _, o := range []string{"refused", "odd"} {
		require.NoError(t, store.Unpark(t.Context(), "orders", order(o), false))
	}
	versions := map[string]string{}
	for range 4 {
		r := next(t, arrived)
		versions[r.Headers[bus.HeaderPartitionKey]] += string(r.Body[len(r.Body)-2])
	}
	require.Equal(t, map[string]string{"refused": "12", "odd": "12"}, versions)
}

// Two relays of one name, one of which leads, through a broker that refuses, or takes and does not say so: all arrives, first arrivals in order.
func TestLogKeepsStreamsInOrder(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	driver := &moody{Driver: memorybus.New(memorybus.Config{}), random: rand.New(rand.NewPCG(seed, 0)), refuse: 0.05}
	b, arrived := openBus(t, driver, "order.placed")
	store := memoryevents.New(eventstore.Config{})
	cfg := relay.LogConfig{Store: store, Bus: b, Messages: publish, InFlight: 8}
	startLog(t, cfg)
	startLog(t, cfg)
	const streams, each = 6, 60
	for range each {
		for i := range streams {
			_, err := store.Append(t.Context(), order(fmt.Sprint(i)), eventstore.Any, eventstore.Event{Type: "placed", Data: jsontext.Value(`{}`)})
			require.NoError(t, err)
		}
	}
	versions := map[string]int64{}
	for e, err := range store.ReadCategory(t.Context(), "order", eventstore.ReadOptions{}) {
		require.NoError(t, err)
		versions[e.ID] = e.Version
	}
	seen, last := map[string]bool{}, map[string]int64{}
	twice := 0
	for len(seen) < streams*each {
		r := next(t, arrived)
		if seen[r.MessageID] {
			twice++
			continue
		}
		seen[r.MessageID] = true
		key := r.Headers[bus.HeaderPartitionKey]
		require.Equal(t, last[key]+1, versions[r.MessageID], "stream %s", key)
		last[key]++
	}
	t.Logf("%d events, %d arrived twice", len(seen), twice)
}
