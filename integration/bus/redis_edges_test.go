package bus_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
)

// plainRedis is a client as another program has it.
func plainRedis(t testing.TB, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	require.NoError(t, err)
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// A stock watermill-redisstream program and the bus read each other.
func TestRedisStockProgram(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	d := openRedis(t, url)
	c := subscribe(t, d, durable("orders.placed"))
	client := plainRedis(t, url)
	subscriber, err := redisstream.NewSubscriber(redisstream.SubscriberConfig{Client: client, ConsumerGroup: "stock", DisableIndefiniteInitialBlock: true}, watermill.NopLogger{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = subscriber.Close() })
	received, err := subscriber.Subscribe(within(t, patience), "orders.placed")
	require.NoError(t, err)

	require.NoError(t, d.Publish(within(t, patience), &bus.Message{RoutingKey: "orders.placed", ID: "ours", Headers: map[string]string{"tenant": "blue"}, Body: []byte("x")}))
	select {
	case m := <-received:
		require.Equal(t, "ours", m.UUID)
		require.Equal(t, "blue", m.Metadata.Get("tenant"))
		require.Equal(t, "x", string(m.Payload))
		m.Ack()
	case <-time.After(patience):
		require.Fail(t, "the stock subscriber received nothing")
	}
	require.NoError(t, next(t, c).Ack())

	publisher, err := redisstream.NewPublisher(redisstream.PublisherConfig{Client: plainRedis(t, url)}, watermill.NopLogger{})
	require.NoError(t, err)
	defer publisher.Close()
	m := message.NewMessage("theirs", []byte(`{"a":1}`))
	m.Metadata.Set("tenant", "red")
	require.NoError(t, publisher.Publish("orders.placed", m))
	got := next(t, c)
	require.Equal(t, "theirs", got.Message().ID)
	require.Equal(t, "orders.placed", got.Message().RoutingKey)
	require.Equal(t, "red", got.Message().Headers["tenant"])
	require.Equal(t, `{"a":1}`, string(got.Message().Body))
	require.NoError(t, got.Ack())
}

// An entry that is no message neither ends the subscription nor stays pending: it is a dead letter with its fields.
func TestRedisMalformedEntry(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	d := openRedis(t, url)
	q := durable("orders.placed")
	c := subscribe(t, d, q)
	client := plainRedis(t, url)
	require.NoError(t, client.XAdd(t.Context(), &redis.XAddArgs{Stream: "orders.placed", Values: map[string]any{"foo": "bar", "metadata": "\xc1"}}).Err())
	publish(t, d, "orders.placed", "good")
	got := next(t, c)
	require.Equal(t, "good", got.Message().ID)
	require.NoError(t, got.Ack())
	require.Eventually(t, func() bool { return waiting(t, d, q.Name) == 0 && waiting(t, d, "bannou-dlx-store") == 1 }, patience, 10*time.Millisecond)
	l, err := d.Letters(within(t, patience))
	require.NoError(t, err)
	letter, err := l.Next(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, bus.DiscardUndecodable, letter.Message().Headers[bus.HeaderDiscardReason])
	require.Equal(t, "bar", letter.Message().Headers["x-entry-foo"])
	require.NoError(t, letter.Ack())
	_, err = l.Next(within(t, patience))
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, l.Close(within(t, patience)))
	require.EqualValues(t, 0, waiting(t, d, "bannou-dlx-store"))
}

// A handler that takes longer than the idle limit keeps its delivery: nobody else gets it.
func TestRedisLongHandlerIsNotRepeated(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	short := func(c *redisbus.Config) { c.ClaimIdle = 3 * time.Second } // a busy machine is not to miss three signs of life in a row
	one, two := openRedis(t, url, short), openRedis(t, url, short)
	q := durable("orders.placed")
	q.Prefetch = 1 // whoever has it does not look for more, the other does
	a, b := subscribe(t, one, q), subscribe(t, two, q)
	publish(t, one, "orders.placed", "long")
	var held bus.Delivery
	select {
	case held = <-a.Deliveries():
	case held = <-b.Deliveries():
	}
	over := time.After(7 * time.Second) // more than twice the limit
	select {
	case <-a.Deliveries():
		t.Error("handled twice")
	case <-b.Deliveries():
		t.Error("handled twice")
	case <-over:
	}
	require.NoError(t, held.Ack())
	require.Eventually(t, func() bool { return waiting(t, one, durable("orders.placed").Name) == 0 }, patience, 10*time.Millisecond)
}

// What a process had in work when it died is taken over, counted as a further attempt.
func TestRedisDeadConsumerIsTakenOver(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	d := openRedis(t, url, func(c *redisbus.Config) { c.ClaimIdle = 300 * time.Millisecond })
	q := durable("orders.placed")
	c := subscribe(t, d, q)
	require.NoError(t, c.Close(within(t, patience)))
	publish(t, d, "orders.placed", "orphan")
	client := plainRedis(t, url)
	got, err := client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: q.Name, Consumer: "dead", Streams: []string{"orders.placed", ">"}}).Result()
	require.NoError(t, err)
	require.Len(t, got[0].Messages, 1)
	c = subscribe(t, d, q)
	x := next(t, c)
	require.Equal(t, "orphan", x.Message().ID)
	require.Equal(t, 2, x.Attempt())
	require.NoError(t, x.Ack())
}

// Retention trims what every group has handled, and nothing that one has not.
func TestRedisRetention(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	d := openRedis(t, url, func(c *redisbus.Config) { c.Grace, c.Upkeep = time.Millisecond, 100*time.Millisecond })
	fast := subscribe(t, d, durable("orders.placed"))
	slow := durable("orders.placed")
	slow.Name = "slow"
	require.NoError(t, subscribe(t, d, slow).Close(within(t, patience)))
	for i := range 50 {
		publish(t, d, "orders.placed", fmt.Sprint(i))
		require.NoError(t, next(t, fast).Ack())
	}
	client := plainRedis(t, url)
	require.EqualValues(t, 50, waiting(t, d, "slow"))
	publish(t, d, "nobody.listens", "x")
	require.Eventually(t, func() bool { return client.XLen(t.Context(), "nobody.listens").Val() == 0 }, patience, 10*time.Millisecond, "upkeep has run")
	require.EqualValues(t, 50, client.XLen(t.Context(), "orders.placed").Val(), "the slow group has not handled them")
	c := subscribe(t, d, slow)
	for i := range 50 {
		x := next(t, c)
		require.Equal(t, fmt.Sprint(i), x.Message().ID)
		require.NoError(t, x.Ack())
	}
	require.Eventually(t, func() bool { return client.XLen(t.Context(), "orders.placed").Val() == 0 }, patience, 10*time.Millisecond, "bounded")
}

// A group that was lost begins again where it was, and skips nothing.
func TestRedisGroupLost(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	d := openRedis(t, url)
	q := durable("orders.placed")
	c := subscribe(t, d, q)
	client := plainRedis(t, url)
	require.NoError(t, c.Close(within(t, patience)))
	for i := range 10 {
		publish(t, d, "orders.placed", fmt.Sprint(i))
	}
	require.NoError(t, client.XGroupDestroy(t.Context(), "orders.placed", q.Name).Err())
	c = subscribe(t, d, q)
	for i := range 10 {
		x := next(t, c)
		require.Equal(t, fmt.Sprint(i), x.Message().ID)
		require.NoError(t, x.Ack())
	}
}

// Closing one driver closes its own connections alone.
func TestRedisCloseIsItsOwn(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	one, two := openRedis(t, url), openRedis(t, url)
	c := subscribe(t, two, durable("orders.placed"))
	require.NoError(t, one.Close(within(t, patience)))
	require.ErrorIs(t, one.Publish(within(t, patience), &bus.Message{RoutingKey: "orders.placed"}), bus.ErrClosed)
	publish(t, two, "orders.placed", "1")
	require.NoError(t, next(t, c).Ack())
}

// The name of a consumer goes with it, unless something is pending under it.
func TestRedisConsumerNames(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	d := openRedis(t, url)
	q := durable("orders.placed")
	c := subscribe(t, d, q)
	client := plainRedis(t, url)
	names := func() int {
		list, err := client.XInfoConsumers(t.Context(), "orders.placed", q.Name).Result()
		require.NoError(t, err)
		return len(list)
	}
	publish(t, d, "orders.placed", "1")
	held := next(t, c)
	require.NoError(t, c.Close(within(t, patience)))
	require.Equal(t, 1, names(), "its delivery is in work")
	require.NoError(t, held.Ack())
	require.Eventually(t, func() bool { return names() == 0 }, patience, 10*time.Millisecond, "its last delivery was settled")
	c = subscribe(t, d, q)
	require.NoError(t, c.Close(within(t, patience)))
	require.Zero(t, names())
}

// A replay reaches one queue alone, as a first delivery; one of a session too.
func TestRedisRedeliver(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	d, far := openRedis(t, url), openRedis(t, url)
	c, other := subscribe(t, d, durable("orders.placed")), subscribe(t, d, bus.Queue{Name: "other", Durable: true, Prefetch: 1, Bindings: []bus.Binding{{Pattern: "orders.#"}}})
	session := subscribe(t, d, dynamic("orders.placed", "1"))
	m := &bus.Message{Exchange: "bannou", RoutingKey: "orders.placed", ID: "again", Headers: map[string]string{"k": "v"}, Body: []byte("x")}
	for queue, c := range map[string]bus.Consumer{durable("orders.placed").Name: c, "orders.placed.dynamic.1": session} {
		require.NoError(t, far.Redeliver(within(t, patience), queue, m))
		x := next(t, c)
		require.Equal(t, 1, x.Attempt())
		require.Equal(t, m, x.Message())
		require.NoError(t, x.Ack())
	}
	nothing(t, other)
	require.ErrorIs(t, far.Redeliver(within(t, patience), "no.such.queue", m), bus.ErrUnroutable)
}

// A durable queue with a pattern gets topics that come while nobody reads it.
func TestRedisPatternQueueMissesNothing(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	d, publisher := openRedis(t, url), openRedis(t, url)
	q := bus.Queue{Name: "audit", Durable: true, Prefetch: 10, Bindings: []bus.Binding{{Pattern: "orders.#"}}}
	require.NoError(t, subscribe(t, d, q).Close(within(t, patience)))
	publish(t, publisher, "orders.placed", "1")
	require.NoError(t, publisher.Publish(within(t, patience), &bus.Message{RoutingKey: "orders.shipped", ID: "2", Mandatory: true}))
	publish(t, publisher, "other.topic", "3")
	c := subscribe(t, d, q)
	publish(t, publisher, "orders.billed", "4")
	seen := map[string]bool{}
	for range 3 {
		x := next(t, c)
		seen[x.Message().ID] = true
		require.NoError(t, x.Ack())
	}
	require.Equal(t, map[string]bool{"1": true, "2": true, "4": true}, seen)
}

// Thousands of sessions need few connections, and each gets its own events.
func TestRedisManyDynamicSubscriptions(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	url := servers.NewRedis(t, servers.RedisOptions{Volatile: true}).URL // what a disk takes is not the question
	d := openRedis(t, url)
	const n = 2100
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
	clients, err := plainRedis(t, url).ClientList(t.Context()).Result()
	require.NoError(t, err)
	number := strings.Count(clients, fmt.Sprintf(" db=%d ", plainRedis(t, url).Options().DB))
	require.Less(t, number, 150, "connections")
	t.Logf("one event each after %s, over %d connections", time.Since(start), number)
}

// A session's consumer that is slow gets all of what came meanwhile, in its order, though it holds little of it.
func TestRedisSlowSessionCatchesUp(t *testing.T) {
	t.Parallel()
	d := openRedis(t, servers.Redis(t).URL)
	q := dynamic("orders.placed", "1")
	q.Prefetch = 1
	c := subscribe(t, d, q)
	for i := range 1500 {
		publish(t, d, "orders.placed", fmt.Sprint(i))
	}
	for i := range 1500 {
		x := next(t, c)
		require.Equal(t, fmt.Sprint(i), x.Message().ID)
		require.NoError(t, x.Ack())
	}
}

// Bodies of any size and kind go through.
func TestRedisBodies(t *testing.T) {
	t.Parallel()
	d := openRedis(t, servers.Redis(t).URL)
	c := subscribe(t, d, durable("orders.placed"))
	for _, body := range [][]byte{make([]byte, 10<<20), {}, []byte("\xff not JSON")} {
		require.NoError(t, d.Publish(within(t, patience), &bus.Message{RoutingKey: "orders.placed", Body: body}))
		x := next(t, c)
		require.Len(t, x.Message().Body, len(body))
		require.NoError(t, x.Ack())
	}
	require.ErrorIs(t, d.Publish(within(t, patience), &bus.Message{RoutingKey: "x", Body: make([]byte, 17<<20)}), bus.ErrInvalid)
}

// The limits of the dead-letter store hold.
func TestRedisDeadLetterLimit(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	d := openRedis(t, url, func(c *redisbus.Config) { c.MaxDeadLetters, c.Upkeep = 3, 50*time.Millisecond })
	for i := range 5 {
		require.NoError(t, d.Publish(within(t, patience), &bus.Message{Exchange: "bannou-dlx", RoutingKey: "dead-letter.x", ID: fmt.Sprint(i), Mandatory: true}))
	}
	require.Eventually(t, func() bool { return waiting(t, d, "bannou-dlx-store") == 3 }, patience, 10*time.Millisecond)
	l, err := d.Letters(within(t, patience))
	require.NoError(t, err)
	require.EqualValues(t, 3, l.Count())
	_, err = openRedis(t, url).Letters(within(t, 100*time.Millisecond))
	require.ErrorIs(t, err, bus.ErrUnavailable, "one reader at a time")
	first, err := l.Next(within(t, patience))
	require.NoError(t, err)
	require.Equal(t, "2", first.Message().ID, "the oldest went")
	require.NoError(t, l.Close(within(t, patience)))
}

// A service starts without its Redis, says so, and joins when it comes. No error tells the password.
func TestRedisAwayAtTheStart(t *testing.T) {
	t.Parallel()
	server := servers.NewRedis(t, servers.RedisOptions{})
	require.NoError(t, server.Kill())
	d := openRedis(t, server.URL)
	password := strings.Split(strings.Split(server.URL, "@")[0], ":")[2]
	err := d.Ready(within(t, time.Second))
	require.ErrorIs(t, err, bus.ErrUnavailable)
	require.NotContains(t, err.Error(), password)
	start := time.Now()
	err = d.Publish(within(t, 300*time.Millisecond), &bus.Message{RoutingKey: "orders.placed"})
	require.ErrorIs(t, err, bus.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NotErrorIs(t, err, bus.ErrNotConfirmed)
	_, err = d.Subscribe(within(t, 300*time.Millisecond), durable("orders.placed"))
	require.ErrorIs(t, err, bus.ErrUnavailable)
	require.Less(t, time.Since(start), patience)
	joined := make(chan bus.Consumer, 1)
	go func() {
		c, err := d.Subscribe(within(t, time.Minute), durable("orders.placed"))
		assert.NoError(t, err)
		joined <- c
	}()
	require.NoError(t, server.Restart(within(t, time.Minute)))
	c := <-joined
	publish(t, d, "orders.placed", "1")
	require.NoError(t, next(t, c).Ack())
	require.NoError(t, d.Ready(t.Context()))
}

// A Redis Cluster is refused with a sentence, at the first use and when it is asked whether it is ready.
func TestRedisClusterIsRefused(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // by itself it would take a port that may be somebody's
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	server := servers.NewRedis(t, servers.RedisOptions{Args: []string{"--cluster-enabled", "yes", "--cluster-port", port}})
	for _, url := range []string{server.URL, strings.TrimSuffix(server.URL, "/0") + "/1"} {
		d := openRedis(t, url)
		_, err := d.Subscribe(within(t, patience), durable("orders.placed"))
		for _, err := range []error{err, d.Ready(within(t, patience)), d.Publish(within(t, patience), &bus.Message{RoutingKey: "orders.placed"})} {
			require.ErrorContains(t, err, "Redis Cluster")
			require.NotErrorIs(t, err, context.DeadlineExceeded)
		}
	}
}
