package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// eachQueueType runs a test on classic and on quorum queues.
func eachQueueType(t *testing.T, test func(t *testing.T, d *rabbitbus.Driver, url string)) {
	t.Parallel()
	for _, kind := range []rabbitbus.QueueType{rabbitbus.Classic, rabbitbus.Quorum} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			url := servers.RabbitMQ(t).URL
			test(t, open(t, url, func(c *rabbitbus.Config) { c.QueueType = kind }), url)
		})
	}
}

// foreign is a plain AMQP channel, as another program has it.
func foreign(t testing.TB, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	require.NoError(t, err)
	return ch
}

func TestPropertiesTravel(t *testing.T) {
	eachQueueType(t, func(t *testing.T, d *rabbitbus.Driver, _ string) {
		c := subscribe(t, d, durable("orders.placed"))
		sent := &bus.Message{
			Exchange: "bannou", RoutingKey: "orders.placed", ID: "id-1", Type: "OrderPlaced", ContentType: "application/json",
			Timestamp: time.Unix(1_700_000_000, 0), CorrelationID: "corr", Priority: 7, Expiration: time.Minute,
			Headers: map[string]string{"traceparent": "00-1", "empty": ""}, Body: []byte(`{"a":1}`),
		}
		require.NoError(t, d.Publish(within(t, patience), sent))
		got := next(t, c)
		require.Equal(t, 1, got.Attempt())
		require.True(t, sent.Timestamp.Equal(got.Message().Timestamp))
		got.Message().Timestamp = sent.Timestamp
		require.Equal(t, sent, got.Message())
		require.NoError(t, got.Ack())
		require.NoError(t, got.Ack(), "a second time does nothing")
	})
}

// A retried message comes back to this queue alone, as it was, with its attempt counted, and others pass it.
func TestRetry(t *testing.T) {
	eachQueueType(t, func(t *testing.T, d *rabbitbus.Driver, url string) {
		q := durable("orders.placed")
		q.Prefetch = 1
		c := subscribe(t, d, q)
		other := subscribe(t, d, bus.Queue{Name: "other", Durable: true, Prefetch: 10, Bindings: []bus.Binding{{Pattern: "orders.#"}}})
		session := subscribe(t, d, dynamic("orders.placed", "1"))
		sent := &bus.Message{Exchange: "bannou", RoutingKey: "orders.placed", ID: "id-1", CorrelationID: "corr", Priority: 3,
			Expiration: time.Hour, Headers: map[string]string{"k": "v"}, Body: []byte("x")}
		require.NoError(t, d.Publish(within(t, patience), sent))
		publish(t, d, "orders.placed", "id-2")
		for _, c := range []bus.Consumer{c, session} {
			for attempt := 1; attempt <= 3; attempt++ {
				got := next(t, c)
				require.Equal(t, attempt, got.Attempt())
				got.Message().Timestamp = sent.Timestamp
				require.Equal(t, sent, got.Message())
				start := time.Now()
				require.NoError(t, got.Retry(within(t, patience), 300*time.Millisecond))
				if attempt == 1 {
					second := next(t, c)
					require.Equal(t, "id-2", second.Message().ID, "the next message must not wait for the delay")
					require.NoError(t, second.Ack())
				}
				if attempt < 3 {
					continue
				}
				got = next(t, c)
				require.Equal(t, 4, got.Attempt())
				require.GreaterOrEqual(t, time.Since(start), 290*time.Millisecond)
				require.NoError(t, got.Retry(within(t, patience), 0), "no delay")
				got = next(t, c)
				require.Equal(t, 5, got.Attempt())
				require.NoError(t, got.Ack())
			}
		}
		for range 2 {
			require.NoError(t, next(t, other).Ack())
		}
		nothing(t, other)
		require.NoError(t, session.Close(within(t, patience)))
		_, err := foreign(t, url).QueueDeclarePassive("orders.placed.dynamic.1", false, false, false, false, nil)
		require.ErrorContains(t, err, "NOT_FOUND", "a dynamic queue goes with its consumer")
		_, err = foreign(t, url).QueueDeclarePassive("orders.placed.dynamic.1.delay.300", false, false, false, false, nil)
		require.ErrorContains(t, err, "NOT_FOUND", "and its delay queue too")
	})
}

// Quorum queues count every redelivery; classic queues only tell that there was one.
func TestRequeueCounts(t *testing.T) {
	eachQueueType(t, func(t *testing.T, d *rabbitbus.Driver, _ string) {
		c := subscribe(t, d, durable("orders.placed"))
		publish(t, d, "orders.placed", "1")
		for range 3 {
			require.NoError(t, next(t, c).Requeue())
		}
		last := next(t, c)
		require.Greater(t, last.Attempt(), 1)
		require.NoError(t, last.Retry(within(t, patience), time.Millisecond))
		again := next(t, c)
		require.Equal(t, last.Attempt()+1, again.Attempt(), "a retry goes on counting")
		require.NoError(t, again.Ack())
	})
}

// Twenty mandatory messages with one id are on the way at once; every second one has nowhere to go.
func TestReturnsFindTheirCaller(t *testing.T) {
	t.Parallel()
	d := open(t, servers.RabbitMQ(t).URL)
	subscribe(t, d, durable("orders.placed"))
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			topic := []string{"orders.placed", "nobody.listens"}[i%2]
			err := d.Publish(within(t, patience), &bus.Message{RoutingKey: topic, ID: "same", Mandatory: true, Body: []byte("x")})
			if i%2 == 0 {
				assert.NoError(t, err)
			} else {
				assert.ErrorIs(t, err, bus.ErrUnroutable)
			}
		})
	}
	wg.Wait()
	require.NoError(t, d.Publish(within(t, patience), &bus.Message{RoutingKey: "nobody.listens"}), "without mandatory it is no error")
}

// What expires in a queue lands in the dead-letter store, and reads as the contract has it.
func TestExpiredIsDeadLettered(t *testing.T) {
	eachQueueType(t, func(t *testing.T, d *rabbitbus.Driver, _ string) {
		q := durable("orders.placed")
		require.NoError(t, subscribe(t, d, q).Close(within(t, patience)))
		require.NoError(t, d.Publish(within(t, patience), &bus.Message{RoutingKey: "orders.placed", ID: "old", Expiration: time.Millisecond,
			Headers: map[string]string{"k": "v"}, Body: []byte("x")}))
		dead := subscribe(t, d, bus.Queue{Name: "bannou-dlx-store", Durable: true, Prefetch: 1})
		delivery := next(t, dead)
		require.NoError(t, delivery.Ack())
		got := delivery.Message()
		require.Equal(t, "old", got.ID)
		require.Equal(t, "bannou-dlx", got.Exchange)
		require.Equal(t, "dead-letter.orders.placed", got.RoutingKey)
		require.Equal(t, "expired", got.Headers["x-discard-reason"])
		require.Equal(t, "orders.placed", got.Headers["x-original-topic"])
		require.Equal(t, "bannou", got.Headers["x-original-exchange"])
		require.NotEmpty(t, got.Headers["x-discarded-at"])
		require.Equal(t, "v", got.Headers["k"])
	})
}

// A foreign program's odd headers and missing properties stop nothing.
func TestForeignMessages(t *testing.T) {
	t.Parallel()
	url := servers.RabbitMQ(t).URL
	d := open(t, url)
	c := subscribe(t, d, durable("orders.placed"))
	require.NoError(t, foreign(t, url).PublishWithContext(within(t, patience), "bannou", "orders.placed", false, false, amqp.Publishing{
		Headers: amqp.Table{"n": int32(7), "f": 1.5, "b": true, "raw": []byte{0xff}, "t": amqp.Table{"a": []any{int64(1), "x"}}, "nil": nil,
			"x-delivery-count": int64(3), "x-death": "not a table", "bannou-attempt": int32(-4)},
		ContentType: "text/weird", Expiration: "not a number"[:0], Body: []byte{0xff, 0x00},
	}))
	got := next(t, c)
	require.Equal(t, "7", got.Message().Headers["n"])
	require.Equal(t, "1.5", got.Message().Headers["f"])
	require.Equal(t, "true", got.Message().Headers["b"])
	require.Equal(t, `{"a":[1,"x"]}`, got.Message().Headers["t"])
	require.Equal(t, []byte{0xff, 0x00}, got.Message().Body)
	require.Empty(t, got.Message().ID)
	require.NoError(t, got.Retry(within(t, patience), time.Millisecond), "also what is odd can be retried")
	require.NoError(t, next(t, c).Ack())
}

// A message that the broker refuses closes the channel that all share. Only its own caller may hear of it.
func TestRefusedMessageHarmsNoOther(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t)
	d := open(t, broker.URL)
	c := subscribe(t, d, durable("orders.placed"))
	// An internal exchange exists, and takes nothing from clients.
	require.NoError(t, foreign(t, broker.URL).ExchangeDeclare("inside", "topic", true, false, true, false, nil))
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if i%50 == 25 {
				err := d.Publish(within(t, patience), &bus.Message{Exchange: "inside", RoutingKey: "x"})
				assert.True(t, errors.Is(err, bus.ErrInvalid) && strings.Contains(err.Error(), "inside"), "%v", err)
				return
			}
			assert.NoError(t, d.Publish(within(t, patience), &bus.Message{RoutingKey: "orders.placed", ID: fmt.Sprint(i)}))
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for len(seen) < 196 {
		got := next(t, c)
		seen[got.Message().ID] = true
		require.NoError(t, got.Ack())
	}
	for _, m := range []*bus.Message{
		{RoutingKey: strings.Repeat("x", 256)}, {RoutingKey: "x", Headers: map[string]string{"h": strings.Repeat("x", 70_000)}},
		{RoutingKey: "x", Body: make([]byte, 17<<20)}, {RoutingKey: "x", Priority: 10}, {RoutingKey: "x", Expiration: 1 << 62},
		{RoutingKey: "x", Headers: map[string]string{strings.Repeat("k", 256): ""}},
	} {
		require.ErrorIs(t, d.Publish(within(t, patience), m), bus.ErrInvalid)
	}
	publish(t, d, "orders.placed", "still here")
}

// RabbitMQ takes the headers CC and BCC for further routes, and closes the channel over one that is no list. Nobody can have it do so,
// and an event of another program that has them can be retried and given up like any other.
func TestHeadersThatRoute(t *testing.T) {
	t.Parallel()
	url := servers.RabbitMQ(t).URL
	logged := new(lockedLog)
	d := open(t, url, func(c *rabbitbus.Config) { c.Logger = slog.New(slog.NewTextHandler(logged, nil)) })
	c := subscribe(t, d, durable("orders.placed"))
	other := subscribe(t, d, bus.Queue{Name: "other", Durable: true, Prefetch: 10, Bindings: []bus.Binding{{Pattern: "elsewhere"}}})
	for _, name := range []string{"CC", "BCC"} {
		err := d.Publish(within(t, patience), &bus.Message{RoutingKey: "orders.placed", Headers: map[string]string{name: "elsewhere"}})
		require.ErrorIs(t, err, bus.ErrInvalid)
		require.ErrorContains(t, err, name)
	}
	require.NoError(t, foreign(t, url).PublishWithContext(within(t, patience), "bannou", "orders.placed", false, false, amqp.Publishing{
		MessageId: "foreign", Headers: amqp.Table{"CC": []any{"elsewhere"}, "cc": "mine"},
	}))
	require.NoError(t, next(t, other).Ack())
	got := next(t, c)
	require.Equal(t, "mine", got.Message().Headers["cc"])
	require.NoError(t, got.Retry(within(t, patience), 0))
	got = next(t, c)
	require.Equal(t, `["elsewhere"]`, got.Message().Headers["x-cc"])
	letter := *got.Message()
	letter.Headers = map[string]string{"CC": "no list", "BCC": "no list"} // as another broker's may be
	require.NoError(t, d.Redeliver(within(t, patience), "orders.placed.bannou.test", &letter))
	require.NoError(t, got.Ack())
	got = next(t, c)
	require.Equal(t, "no list", got.Message().Headers["x-bcc"])
	require.NoError(t, got.Ack())
	letter.Exchange, letter.RoutingKey = "bannou-dlx", "dead-letter.orders.placed"
	require.NoError(t, d.Publish(within(t, patience), &letter))
	nothing(t, other)
	require.NotContains(t, logged.String(), "closed the channel")
}

// An exchange that refuses what it is sent closes the channel of all once, and not again with each message.
func TestExchangeThatRefuses(t *testing.T) {
	t.Parallel()
	url := servers.RabbitMQ(t).URL
	logged := new(lockedLog)
	d := open(t, url, func(c *rabbitbus.Config) { c.Logger = slog.New(slog.NewTextHandler(logged, nil)) })
	ch := foreign(t, url)
	require.NoError(t, ch.ExchangeDeclare("inside", "topic", true, false, true, false, nil))
	for range 10 {
		require.ErrorIs(t, d.Publish(within(t, patience), &bus.Message{Exchange: "inside", RoutingKey: "x"}), bus.ErrInvalid)
		publish(t, d, "orders.placed", "beside")
	}
	require.Equal(t, 1, strings.Count(logged.String(), "closed the channel"))
	require.NoError(t, ch.ExchangeDelete("inside", false, false))
	require.NoError(t, d.Publish(within(t, patience), &bus.Message{Exchange: "inside", RoutingKey: "x"}), "another one of its name is declared")
}

// A queue that is full refuses its messages; the caller is told that it was that, and others go on.
func TestFullQueue(t *testing.T) {
	t.Parallel()
	url := servers.RabbitMQ(t).URL
	d := open(t, url)
	c := subscribe(t, d, durable("orders.placed"))
	ch := foreign(t, url)
	_, err := ch.QueueDeclare("full", true, false, false, false, amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
	require.NoError(t, err)
	require.NoError(t, ch.QueueBind("full", "orders.full", "bannou", false, nil))
	publish(t, d, "orders.full", "1")
	err = d.Publish(within(t, 5*time.Second), &bus.Message{RoutingKey: "orders.full", ID: "2"})
	require.ErrorIs(t, err, bus.ErrNotConfirmed)
	require.ErrorIs(t, err, bus.ErrRefused)
	publish(t, d, "orders.placed", "3")
	require.NoError(t, next(t, c).Ack())
}

// Another exchange is declared when it is first used, and taken as it is when it exists.
func TestOtherExchanges(t *testing.T) {
	t.Parallel()
	url := servers.RabbitMQ(t).URL
	d := open(t, url)
	require.NoError(t, d.Publish(within(t, patience), &bus.Message{Exchange: "fresh", RoutingKey: "x"}))
	require.NoError(t, foreign(t, url).ExchangeDeclare("fan", "fanout", false, true, false, false, nil))
	for _, exchange := range []string{"fresh", "fan", "amq.topic"} {
		c := subscribe(t, d, bus.Queue{Name: "q-" + exchange, Durable: true, Prefetch: 1, Bindings: []bus.Binding{{Exchange: exchange, Pattern: "x"}}})
		require.NoError(t, d.Publish(within(t, patience), &bus.Message{Exchange: exchange, RoutingKey: "x", Mandatory: true, ID: exchange}))
		got := next(t, c)
		require.Equal(t, exchange, got.Message().Exchange)
		require.NoError(t, got.Ack())
	}
}

func TestQueueWithOtherArguments(t *testing.T) {
	t.Parallel()
	url := servers.RabbitMQ(t).URL
	_, err := foreign(t, url).QueueDeclare("orders.placed.bannou.test", true, false, false, false, amqp.Table{"x-max-length": 5})
	require.NoError(t, err)
	d := open(t, url)
	_, err = d.Subscribe(within(t, patience), durable("orders.placed"))
	require.ErrorIs(t, err, bus.ErrInvalid)
	require.ErrorContains(t, err, "orders.placed.bannou.test")
	require.ErrorContains(t, err, "delete it once it is empty")
	publish(t, d, "orders.placed", "the driver goes on")
}

// A consumer hands out no more than its prefetch, and gives back what it fetched and did not hand out.
func TestPrefetchAndClose(t *testing.T) {
	eachQueueType(t, func(t *testing.T, d *rabbitbus.Driver, _ string) {
		q := durable("orders.placed")
		q.Prefetch = 3
		c := subscribe(t, d, q)
		for i := range 10 {
			publish(t, d, "orders.placed", fmt.Sprint(i))
		}
		first, second, third := next(t, c), next(t, c), next(t, c)
		require.Equal(t, []string{"0", "1", "2"}, []string{first.Message().ID, second.Message().ID, third.Message().ID})
		nothing(t, c)
		require.NoError(t, first.Ack())
		fourth := next(t, c)
		require.Equal(t, "3", fourth.Message().ID)
		require.NoError(t, c.Close(within(t, patience)))
		_, open := <-c.Deliveries()
		require.False(t, open)
		require.NoError(t, second.Ack(), "what was delivered can still be settled")
		require.NoError(t, third.Requeue())
		require.NoError(t, fourth.Requeue())
		require.Eventually(t, func() bool { return waiting(t, d, q.Name) == 8 }, patience, 20*time.Millisecond, "given back")
		require.NoError(t, c.Close(within(t, patience)))
	})
}

// At most once is bounded too: messages wait in the queue, not in this process.
func TestAutoAck(t *testing.T) {
	t.Parallel()
	d := open(t, servers.RabbitMQ(t).URL)
	q := durable("orders.placed")
	q.AutoAck, q.Prefetch = true, 2
	c := subscribe(t, d, q)
	for i := range 20 {
		publish(t, d, "orders.placed", fmt.Sprint(i))
	}
	require.NoError(t, next(t, c).Ack())
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		assert.Greater(t, waiting(t, d, q.Name), int64(10))
	}, patience, 50*time.Millisecond)
	for range 19 {
		next(t, c)
	}
	nothing(t, c)
}

// waiting is how many messages a queue holds ready.
func waiting(t assert.TestingT, d bus.Driver, queue string) int64 {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := d.Queues(ctx)
	assert.NoError(t, err)
	for _, q := range list {
		if q.Name == queue {
			return q.Messages
		}
	}
	return -1
}

// More than two thousand dynamic subscriptions fit one connection, whose channels the broker limits to 2 047.
func TestManyDynamicSubscriptions(t *testing.T) {
	t.Parallel()
	d := open(t, servers.RabbitMQ(t).URL)
	const n = 2100
	if testing.Short() {
		t.Skip("takes seconds")
	}
	consumers := make([]bus.Consumer, n)
	start := time.Now()
	for i := range consumers {
		q := dynamic("session.updated", fmt.Sprint(i))
		q.Bindings[0].Pattern = fmt.Sprintf("session.%d.*", i)
		consumers[i] = subscribe(t, d, q)
	}
	t.Logf("%d subscriptions in %s", n, time.Since(start))
	for i := range consumers {
		publish(t, d, fmt.Sprintf("session.%d.capabilities", i), fmt.Sprint(i))
	}
	for i, c := range consumers {
		got := next(t, c)
		require.Equal(t, fmt.Sprint(i), got.Message().ID)
		require.NoError(t, got.Ack())
	}
}

func TestQueuesAndDelete(t *testing.T) {
	t.Parallel()
	d := open(t, servers.RabbitMQ(t).URL)
	c := subscribe(t, d, durable("orders.placed"))
	subscribe(t, d, dynamic("orders.shipped", "7"))
	list, err := d.Queues(within(t, patience))
	require.NoError(t, err)
	require.ElementsMatch(t, []bus.QueueInfo{
		{Name: "orders.placed.bannou.test", Topic: "orders.placed", Exchange: "bannou", Consumers: 1},
		{Name: "orders.shipped.dynamic.7", Topic: "orders.shipped", Exchange: "bannou", Consumers: 1},
		{Name: "bannou-dlx-store", Topic: "dead-letter.#", Exchange: "bannou-dlx"},
	}, list)
	require.NoError(t, d.DeleteQueue(within(t, patience), "orders.placed.bannou.test"))
	_, open := <-c.Deliveries()
	require.False(t, open, "its consumer ends")
	require.NoError(t, d.DeleteQueue(within(t, patience), "never existed"))
	require.ErrorIs(t, d.Publish(within(t, patience), &bus.Message{RoutingKey: "orders.placed", Mandatory: true}), bus.ErrUnroutable)
}
