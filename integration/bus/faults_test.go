package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// The tests that harm a broker have one of their own, one after the other. What they do under load is in integration/faults.
func TestBadDays(t *testing.T) {
	t.Parallel()
	broker := servers.NewRabbitMQ(t, servers.RabbitOptions{})
	for _, day := range []struct {
		name string
		test func(t *testing.T, broker *servers.RabbitServer)
	}{
		{"away at the start", awayAtTheStart},
		{"paused", paused},
		{"short of memory", shortOfMemory},
	} {
		if !t.Run(day.name, func(t *testing.T) { day.test(t, broker) }) {
			return // the broker may be in any state
		}
	}
}

// A service starts without its broker, says so, and joins when it comes.
func awayAtTheStart(t *testing.T, broker *servers.RabbitServer) {
	require.NoError(t, broker.Kill())
	d := open(t, broker.URL)
	err := d.Ready(t.Context())
	require.ErrorIs(t, err, bus.ErrUnavailable)
	require.NotContains(t, err.Error(), ":bannou@", "the password")

	start := time.Now()
	err = d.Publish(within(t, 300*time.Millisecond), &bus.Message{RoutingKey: "orders.placed"})
	require.ErrorIs(t, err, bus.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, bus.ErrNotConfirmed)
	_, err = d.Subscribe(within(t, 300*time.Millisecond), durable("orders.placed"))
	require.ErrorIs(t, err, bus.ErrUnavailable)
	require.Less(t, time.Since(start), patience)

	joined := make(chan error, 1)
	consumers := make(chan bus.Consumer, 1)
	go func() {
		c, err := d.Subscribe(within(t, time.Minute), durable("orders.placed"))
		consumers <- c
		joined <- err
	}()
	require.NoError(t, broker.Restart(within(t, time.Minute)))
	require.NoError(t, <-joined)
	require.Eventually(t, func() bool { return d.Ready(t.Context()) == nil }, patience, 10*time.Millisecond)
	publish(t, d, "orders.placed", "1")
	require.NoError(t, next(t, <-consumers).Ack())
}

// A broker that is stopped answers nothing and takes no bytes. Callers return by their deadlines all the same, also
// when the socket is full.
func paused(t *testing.T, broker *servers.RabbitServer) {
	d := open(t, broker.URL)
	c := subscribe(t, d, durable("paused.one"))
	publish(t, d, "paused.one", "before")
	require.NoError(t, next(t, c).Ack())

	require.NoError(t, broker.Pause())
	start := time.Now()
	var wg sync.WaitGroup
	var notConfirmed atomic.Int64
	for i := range 40 {
		wg.Go(func() {
			begin := time.Now()
			deadline := time.Duration(200+50*i) * time.Millisecond
			err := d.Publish(within(t, deadline), &bus.Message{RoutingKey: "paused.one", ID: "stuck", Body: make([]byte, 1<<20)})
			late := time.Since(begin) - deadline
			assert.Less(t, late, patience)
			if assert.True(t, errors.Is(err, bus.ErrNotConfirmed) || errors.Is(err, bus.ErrUnavailable), "%v", err) && errors.Is(err, bus.ErrNotConfirmed) {
				notConfirmed.Add(1)
			}
			assert.ErrorIs(t, err, context.DeadlineExceeded)
		})
	}
	wg.Wait()
	_, err := d.Subscribe(within(t, 200*time.Millisecond), durable("paused.two"))
	require.ErrorIs(t, err, bus.ErrUnavailable)
	_, err = d.Queues(within(t, 200*time.Millisecond))
	require.ErrorIs(t, err, bus.ErrUnavailable)
	require.ErrorIs(t, c.Close(within(t, 200*time.Millisecond)), context.DeadlineExceeded)
	require.Less(t, time.Since(start), patience)
	// The system's buffers hold a few of them.
	assert.Less(t, notConfirmed.Load(), int64(25), "what a broker does not take must wait with its callers, not in memory")
	t.Logf("40 publishes of 1 MiB to a paused broker returned by their deadlines, %d of them sent, not confirmed", notConfirmed.Load())

	require.NoError(t, broker.Resume())
	<-c.Deliveries() // it ends after all
	publish(t, d, "paused.one", "after")
	again := subscribe(t, d, durable("paused.one"))
	for {
		got := next(t, again)
		require.NoError(t, got.Ack())
		if got.Message().ID == "after" {
			return
		}
	}
}

// A broker that is short of memory takes nothing. Publish returns by its deadline, Ready says why, and both heal.
func shortOfMemory(t *testing.T, broker *servers.RabbitServer) {
	d := open(t, broker.URL)
	c := subscribe(t, d, durable("memory.one"))
	_, err := broker.Ctl(within(t, time.Minute), "set_vm_memory_high_watermark", "0.00001")
	require.NoError(t, err)
	// The broker says that it blocks when the first message comes.
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		assert.Error(t, d.Publish(ctx, &bus.Message{RoutingKey: "memory.one", ID: "first"}))
		err := d.Ready(context.Background())
		assert.ErrorIs(t, err, bus.ErrUnavailable)
		assert.ErrorContains(t, err, "memory")
	}, patience, time.Millisecond)
	start := time.Now()
	err = d.Publish(within(t, 300*time.Millisecond), &bus.Message{RoutingKey: "memory.one", ID: "second"})
	require.ErrorIs(t, err, bus.ErrUnavailable, "it was not sent")
	require.Less(t, time.Since(start), patience)

	sent := make(chan error, 1)
	go func() {
		sent <- d.Publish(within(t, time.Minute), &bus.Message{RoutingKey: "memory.one", ID: "third"})
	}()
	_, err = broker.Ctl(within(t, time.Minute), "set_vm_memory_high_watermark", "0.4")
	require.NoError(t, err)
	require.NoError(t, <-sent)
	require.NoError(t, d.Ready(t.Context()))
	for {
		got := next(t, c)
		require.NoError(t, got.Ack())
		if got.Message().ID == "third" {
			return
		}
	}
}

// A queue deleted under its consumer is declared and consumed again, and no phantom is delivered.
func TestQueueDeletedUnderConsumer(t *testing.T) {
	t.Parallel()
	url := servers.RabbitMQ(t).URL
	d := open(t, url)
	q := durable("orders.placed")
	c := subscribe(t, d, q)
	ch := foreign(t, url)
	for i := range 5 {
		_, err := ch.QueueDelete(q.Name, false, false, false)
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			return d.Publish(within(t, patience), &bus.Message{RoutingKey: "orders.placed", ID: fmt.Sprint(i), Mandatory: true}) == nil
		}, patience, 10*time.Millisecond)
		got := next(t, c)
		require.Equal(t, fmt.Sprint(i), got.Message().ID)
		require.NoError(t, got.Ack())
	}
}

// An exchange that is deleted takes all bindings with it. The first publish after finds out, and brings all back,
// bindings of exclusive queues included.
func TestExchangeDeleted(t *testing.T) {
	t.Parallel()
	url := servers.RabbitMQ(t).URL
	d := open(t, url)
	c := subscribe(t, d, durable("orders.placed"))
	session := subscribe(t, d, dynamic("orders.placed", "1"))
	for i := range 3 {
		require.NoError(t, foreign(t, url).ExchangeDelete("bannou", false, false))
		var wg sync.WaitGroup
		for j := range 20 {
			wg.Go(func() {
				id := fmt.Sprintf("%d-%d", i, j)
				assert.NoError(t, d.Publish(within(t, patience), &bus.Message{RoutingKey: "orders.placed", ID: id, Mandatory: true}))
			})
		}
		wg.Wait()
		for _, c := range []bus.Consumer{c, session} {
			seen := map[string]bool{}
			for len(seen) < 20 {
				got := next(t, c)
				seen[got.Message().ID] = true
				require.NoError(t, got.Ack())
			}
		}
	}
}

// An exchange that is deleted takes the bindings of other processes' queues too. Whoever restores it, they hear of it.
func TestExchangeDeletedUnderOthers(t *testing.T) {
	t.Parallel()
	for name, restore := range map[string]func(t *testing.T, ch *amqp.Channel){
		"and restored by a publisher": func(*testing.T, *amqp.Channel) {},
		"and made anew by another program": func(t *testing.T, ch *amqp.Channel) {
			require.NoError(t, ch.ExchangeDeclare("bannou", "topic", true, false, false, false, nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := servers.RabbitMQ(t).URL
			reader, publisher := open(t, url), open(t, url)
			consumers := []bus.Consumer{
				subscribe(t, reader, durable("orders.placed")), subscribe(t, reader, dynamic("orders.placed", "1")),
				subscribe(t, reader, bus.Queue{Name: "client", Durable: true, Expires: time.Minute, Prefetch: 1, Bindings: []bus.Binding{{Pattern: "orders.placed"}}}),
			}
			// What tells that it was deleted comes with the first look after the start.
			conn, err := amqp.Dial(url)
			require.NoError(t, err)
			t.Cleanup(func() { _ = conn.Close() })
			require.Eventually(t, func() bool {
				ch, err := conn.Channel() // the answer that it is not there ends it
				return err == nil && ch.ExchangeDeclarePassive("bannou.mark", "fanout", true, true, true, false, nil) == nil
			}, patience, 50*time.Millisecond)
			ch, err := conn.Channel()
			require.NoError(t, err)
			require.NoError(t, ch.ExchangeDelete("bannou", false, false))
			restore(t, ch)
			for i, c := range consumers {
				var got bus.Delivery
				require.Eventually(t, func() bool {
					if publisher.Publish(within(t, patience), &bus.Message{RoutingKey: "orders.placed", ID: fmt.Sprint(i)}) != nil {
						return false
					}
					select {
					case got = <-c.Deliveries():
						return true
					default:
						return false
					}
				}, patience, 20*time.Millisecond)
				require.NoError(t, got.Ack())
			}
		})
	}
}

// Close waits for deliveries in work, and what is not settled by its deadline goes back.
func TestCloseReturnsWhatIsInWork(t *testing.T) {
	t.Parallel()
	url := servers.RabbitMQ(t).URL
	d := open(t, url)
	c := subscribe(t, d, durable("orders.placed"))
	publish(t, d, "orders.placed", "1")
	publish(t, d, "orders.placed", "2")
	one, two := next(t, c), next(t, c)
	closed := make(chan error, 1)
	go func() { closed <- d.Close(within(t, 5*time.Second)) }()
	_, open1 := <-c.Deliveries()
	require.False(t, open1)
	require.NoError(t, one.Ack())
	require.ErrorContains(t, <-closed, "not settled")
	require.Error(t, two.Ack(), "too late")
	require.ErrorIs(t, d.Publish(t.Context(), &bus.Message{RoutingKey: "x"}), bus.ErrClosed)
	_, err := d.Subscribe(t.Context(), durable("orders.placed"))
	require.ErrorIs(t, err, bus.ErrClosed)

	again := open(t, url)
	got := next(t, subscribe(t, again, durable("orders.placed")))
	require.Equal(t, "2", got.Message().ID)
	require.Equal(t, 2, got.Attempt())
	require.NoError(t, got.Ack())
}

// The second of two addresses is used when the first does not answer.
func TestSecondAddress(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	d := open(t, "amqp://guest:secret@127.0.0.1:1/", func(c *rabbitbus.Config) { c.URLs = append(c.URLs, broker.URL) })
	publish(t, d, "orders.placed", "1")
}
