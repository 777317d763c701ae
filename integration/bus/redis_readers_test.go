package bus_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
)

// Two consumers of one queue on one node are two: a cut connection has neither take what the other has in work.
func TestRedisSiblingsKeepTheirWorkWhenConnectionsAreCut(t *testing.T) {
	t.Parallel()
	server := servers.NewRedis(t, servers.RedisOptions{Volatile: true}) // all of whose connections are the test's to cut
	d := openRedis(t, server.URL, func(c *redisbus.Config) { c.ClaimIdle = 3 * time.Second })
	q := durable("orders.placed")
	q.Prefetch = 8
	const events = 12
	consumers := []bus.Consumer{subscribe(t, d, q), subscribe(t, d, q)}
	for range events {
		publish(t, d, "orders.placed", "x")
	}
	held := make(map[bus.Delivery]bool)
	take := func() bus.Delivery {
		select {
		case x := <-consumers[0].Deliveries():
			return x
		case x := <-consumers[1].Deliveries():
			return x
		case <-time.After(patience):
			require.Fail(t, "nothing was delivered")
			return nil
		}
	}
	for range events {
		held[take()] = true
	}
	require.NoError(t, plainRedis(t, server.URL).ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err())
	publish(t, d, "orders.placed", "after") // whoever gets it reads again
	after := take()
	require.Equal(t, "after", after.Message().ID, "what is in work was handed out again")
	over := time.After(7 * time.Second) // more than two claim times: each of the two has looked for what is lost, and left
	for waiting := true; waiting; {
		select {
		case x := <-consumers[0].Deliveries():
			require.Fail(t, "handed out again", "attempt %d of %s", x.Attempt(), x.Message().ID)
		case x := <-consumers[1].Deliveries():
			require.Fail(t, "handed out again", "attempt %d of %s", x.Attempt(), x.Message().ID)
		case <-over:
			waiting = false
		}
	}
	for x := range held {
		require.NoError(t, x.Ack())
	}
	require.NoError(t, after.Ack())
	require.Eventually(t, func() bool { return waiting(t, d, q.Name) == 0 }, patience, 10*time.Millisecond)
}

// The end of one consumer of a queue takes nothing from the others of its node: not their group, nor their delayed
// messages, nor their place in the registry.
func TestRedisSiblingOutlivesTheOther(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{true, false} {
		t.Run(map[bool]string{true: "durable", false: "not durable"}[keep], func(t *testing.T) {
			t.Parallel()
			url := servers.Redis(t).URL
			d, far := openRedis(t, url), openRedis(t, url)
			q := durable("orders.placed")
			q.Durable = keep
			one, two := subscribe(t, d, q), subscribe(t, d, q)
			require.EqualValues(t, 2, readers(t, far, q.Name))
			publish(t, d, "orders.placed", "delayed")
			var delayed bus.Delivery
			select {
			case delayed = <-one.Deliveries():
			case delayed = <-two.Deliveries():
			}
			require.NoError(t, delayed.Retry(within(t, patience), 300*time.Millisecond))
			require.NoError(t, one.Close(within(t, patience)))
			require.EqualValues(t, 1, readers(t, far, q.Name), "at once, not after a renewal")
			require.NoError(t, plainRedis(t, url).XInfoConsumers(t.Context(), "orders.placed", q.Name).Err(), "its group stays")
			exclusive := q
			exclusive.Exclusive, exclusive.Durable = true, keep
			_, err := far.Subscribe(within(t, patience), exclusive)
			require.ErrorIs(t, err, bus.ErrInvalid, "somebody reads it")
			require.NoError(t, far.Publish(within(t, patience), &bus.Message{RoutingKey: "orders.placed", ID: "new", Mandatory: true}))
			seen := map[string]int{}
			for range 2 {
				x := next(t, two)
				seen[x.Message().ID] = x.Attempt()
				require.NoError(t, x.Ack())
			}
			require.Equal(t, map[string]int{"new": 1, "delayed": 2}, seen)
			require.NoError(t, two.Close(within(t, patience)))
			require.LessOrEqual(t, readers(t, far, q.Name), int64(0))
		})
	}
}

// A consumer of an earlier version had the name of its driver; what it left is taken over, and what it said in the registry counts.
func TestRedisReaderOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	d := openRedis(t, url, func(c *redisbus.Config) { c.ClaimIdle = 300 * time.Millisecond })
	q := durable("orders.placed")
	client := plainRedis(t, url)
	const name = "3f1c6f0e-6a52-4a44-9a3f-0c1f5a4f4b11"
	require.NoError(t, subscribe(t, d, q).Close(within(t, patience)))
	publish(t, d, "orders.placed", "orphan")
	require.NoError(t, client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: q.Name, Consumer: name, Streams: []string{"orders.placed", ">"}}).Err())
	later := float64(time.Now().Add(time.Minute).UnixMilli())
	require.NoError(t, client.ZAdd(t.Context(), "bannou:{registry}:readers:"+q.Name, redis.Z{Score: later, Member: name}).Err())
	c := subscribe(t, d, q)
	require.EqualValues(t, 2, readers(t, d, q.Name))
	x := next(t, c)
	require.Equal(t, "orphan", x.Message().ID)
	require.NoError(t, x.Ack())
}

// readers is how many consumers a queue is listed with; -1: it is not listed.
func readers(t testing.TB, d bus.Driver, queue string) int64 {
	t.Helper()
	list, err := d.Queues(within(t, patience))
	require.NoError(t, err)
	for _, q := range list {
		if q.Name == queue {
			return q.Consumers
		}
	}
	return -1
}
