package memorybus_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
)

func open(t testing.TB, cfg memorybus.Config) *memorybus.Driver {
	d := memorybus.New(cfg)
	t.Cleanup(func() { require.NoError(t, d.Close(context.Background())) })
	return d
}

func queue(name, pattern string) bus.Queue {
	return bus.Queue{Name: name, Durable: true, Prefetch: 1, Bindings: []bus.Binding{{Pattern: pattern}}}
}

func count(t testing.TB, d *memorybus.Driver, name string) int64 {
	all, err := d.Queues(context.Background())
	require.NoError(t, err)
	for _, q := range all {
		if q.Name == name {
			return q.Messages
		}
	}
	t.Fatalf("there is no queue %q", name)
	return 0
}

// A full queue makes its publishers wait: until their contexts end, and then no queue has the message; or until there
// is room.
func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, memorybus.Config{MaxQueueLength: 3})
		c, err := d.Subscribe(t.Context(), queue("full", "a"))
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, d.Publish(t.Context(), &bus.Message{RoutingKey: "a"}))
		}
		wide, err := d.Subscribe(t.Context(), queue("wide", "#"))
		require.NoError(t, err)
		require.NoError(t, wide.Close(t.Context()))

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		require.ErrorIs(t, d.Publish(ctx, &bus.Message{RoutingKey: "a"}), bus.ErrUnavailable)
		require.Equal(t, time.Minute, time.Since(begin))
		require.Zero(t, count(t, d, "wide"), "none of its queues has it")

		published := make(chan error, 1)
		go func() { published <- d.Publish(t.Context(), &bus.Message{RoutingKey: "a"}) }()
		synctest.Wait()
		require.Empty(t, published, "it waits")
		require.NoError(t, (<-c.Deliveries()).Ack())
		require.NoError(t, <-published)
		require.EqualValues(t, 1, count(t, d, "wide"))

		go func() { published <- d.Publish(t.Context(), &bus.Message{RoutingKey: "a"}) }()
		synctest.Wait()
		require.NoError(t, d.DeleteQueue(t.Context(), "full"))
		require.NoError(t, <-published, "a queue that goes frees those who wait for it")

		require.NoError(t, d.Publish(t.Context(), &bus.Message{RoutingKey: "b"}))
	})
}

// A closing broker does not leave publishers waiting.
func TestCloseFreesPublishers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, memorybus.Config{MaxQueueLength: 1})
		_, err := d.Subscribe(t.Context(), queue("full", "a"))
		require.NoError(t, err)
		require.NoError(t, d.Publish(t.Context(), &bus.Message{RoutingKey: "a"}))
		published := make(chan error, 1)
		go func() { published <- d.Publish(t.Context(), &bus.Message{RoutingKey: "a"}) }()
		synctest.Wait()
		require.NoError(t, d.Close(t.Context()))
		require.Error(t, <-published)
		require.ErrorIs(t, d.Publish(t.Context(), &bus.Message{RoutingKey: "a"}), bus.ErrClosed)
	})
}

// The dead-letter store keeps the newest, and for so long; what goes is counted.
func TestDeadLetterStoreHasLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := metric.NewManualReader()
		d := open(t, memorybus.Config{MaxDeadLetters: 3, MaxDeadLetterAge: time.Hour, MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))})
		letter := func(n int) *bus.Message {
			return &bus.Message{Exchange: "bannou-dlx", RoutingKey: "dead-letter.a", ID: fmt.Sprint(n), Priority: uint8(n), Mandatory: true}
		}
		for n := range 5 {
			require.NoError(t, d.Publish(t.Context(), letter(n)))
		}
		require.EqualValues(t, 3, count(t, d, memorybus.DeadLetterStore))
		require.EqualValues(t, 2, dropped(t, reader)["limit"])
		time.Sleep(30 * time.Minute) //nolint:forbidigo // the time of synctest
		require.NoError(t, d.Publish(t.Context(), letter(5)))
		require.EqualValues(t, 3, dropped(t, reader)["limit"])
		time.Sleep(31 * time.Minute) //nolint:forbidigo // the time of synctest
		require.EqualValues(t, 1, count(t, d, memorybus.DeadLetterStore))
		require.EqualValues(t, 2, dropped(t, reader)["age"])
		c, err := d.Subscribe(t.Context(), bus.Queue{Name: memorybus.DeadLetterStore, Durable: true, Prefetch: 5})
		require.NoError(t, err)
		require.Equal(t, "5", (<-c.Deliveries()).Message().ID, "the newest")
	})
}

func dropped(t *testing.T, r *metric.ManualReader) map[string]int64 {
	var all metricdata.ResourceMetrics
	require.NoError(t, r.Collect(context.Background(), &all))
	sums := make(map[string]int64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
				reason, _ := p.Attributes.Value("reason")
				sums[reason.AsString()] += p.Value
			}
		}
	}
	return sums
}

// Expiration does not touch what a consumer has in hand, and goes on counting when that is given back.
func TestExpirationPausesInHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, memorybus.Config{})
		c, err := d.Subscribe(t.Context(), queue("q", "a"))
		require.NoError(t, err)
		require.NoError(t, d.Publish(t.Context(), &bus.Message{RoutingKey: "a", Expiration: time.Second}))
		x := <-c.Deliveries()
		time.Sleep(2 * time.Second) //nolint:forbidigo // the time of synctest
		require.Zero(t, count(t, d, memorybus.DeadLetterStore))
		require.NoError(t, c.Close(t.Context()))
		require.NoError(t, x.Requeue())
		synctest.Wait()
		require.EqualValues(t, 1, count(t, d, memorybus.DeadLetterStore))
		require.Zero(t, count(t, d, "q"))
	})
}

// Delayed redeliveries come in the order of their times, whatever the order they were asked for.
func TestRetriesComeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, memorybus.Config{})
		q := queue("q", "a")
		q.Prefetch = 10
		c, err := d.Subscribe(t.Context(), q)
		require.NoError(t, err)
		begin := time.Now()
		for _, delay := range []time.Duration{3 * time.Second, time.Second, 2 * time.Second} {
			require.NoError(t, d.Publish(t.Context(), &bus.Message{RoutingKey: "a", ID: delay.String()}))
			require.NoError(t, (<-c.Deliveries()).Retry(t.Context(), delay))
		}
		for _, want := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second} {
			x := <-c.Deliveries()
			require.Equal(t, want.String(), x.Message().ID)
			require.Equal(t, want, time.Since(begin))
			require.Equal(t, 2, x.Attempt())
			require.NoError(t, x.Ack())
		}
	})
}

// What a publisher does to its message afterwards, and a handler to its own, others do not see.
func TestQueuesShareNothing(t *testing.T) {
	d := open(t, memorybus.Config{})
	one, err := d.Subscribe(t.Context(), queue("one", "a"))
	require.NoError(t, err)
	two, err := d.Subscribe(t.Context(), queue("two", "a"))
	require.NoError(t, err)
	require.NoError(t, d.Publish(t.Context(), &bus.Message{RoutingKey: "a", Headers: map[string]string{"k": "v"}, Body: []byte("body")}))
	for _, c := range []bus.Consumer{one, two} {
		got := (<-c.Deliveries()).Message()
		require.Equal(t, "body", string(got.Body))
		require.Equal(t, "v", got.Headers["k"])
		got.Body[0], got.Headers["k"] = 'Y', "Y"
	}
}

// Memory does not grow with what has passed through.
func TestMemoryIsFlat(t *testing.T) {
	d := open(t, memorybus.Config{})
	q := queue("q", "a")
	q.Prefetch = 100
	c, err := d.Subscribe(t.Context(), q)
	require.NoError(t, err)
	turn := func(n int) uint64 {
		var reading sync.WaitGroup
		reading.Go(func() {
			for range n {
				if err := (<-c.Deliveries()).Ack(); err != nil {
					t.Error(err)
				}
			}
		})
		for range n {
			require.NoError(t, d.Publish(t.Context(), &bus.Message{RoutingKey: "a", Body: make([]byte, 1024), Expiration: time.Hour}))
		}
		reading.Wait()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := turn(1_000)
	after := turn(20_000)
	require.Less(t, after, before+4<<20, "20 MiB went through; the heap went from %d to %d", before, after)
}

// Ten thousand sessions subscribe, each hears its own, and nothing remains of them.
func TestManyDynamicSubscriptions(t *testing.T) {
	const sessions = 10_000
	d := open(t, memorybus.Config{})
	b, err := bus.New(d, bus.Config{})
	require.NoError(t, err)
	got := make(chan string, sessions)
	begin := time.Now()
	for i := range sessions {
		_, err := b.SubscribeRaw(t.Context(), fmt.Sprintf("session.s-%d.*", i), func(_ context.Context, r *bus.Received) error {
			got <- r.Topic
			return nil
		}, bus.SubscriptionOptions{PrefetchCount: 1})
		require.NoError(t, err)
	}
	made := time.Now()
	for i := range sessions {
		_, err := b.PublishRaw(t.Context(), fmt.Sprintf("session.s-%d.capabilities", i), []byte(`{}`), bus.PublishOptions{})
		require.NoError(t, err)
	}
	seen := make(map[string]bool)
	for range sessions {
		seen[<-got] = true
	}
	require.Len(t, seen, sessions)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("%d subscriptions: made in %s, one event each in %s, %d MiB of memory in use", sessions, made.Sub(begin), time.Since(made), (m.Sys-m.HeapReleased)>>20)
	require.NoError(t, b.Close(t.Context()))
	all, err := d.Queues(t.Context())
	require.NoError(t, err)
	require.Len(t, all, 1, "the dead-letter store alone remains")
}
