package bus_test

import (
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// A delay queue of an earlier version, which expires, is left alone: its messages come back, and the queue is delayed by another one.
func TestDelayQueueOfAnEarlierVersion(t *testing.T) {
	eachQueueType(t, func(t *testing.T, d *rabbitbus.Driver, url string) {
		q := durable("orders.placed")
		c := subscribe(t, d, q)
		ch := foreign(t, url)
		old := q.Name + ".delay.1000"
		_, err := ch.QueueDeclare(old, true, false, false, false, amqp.Table{
			"x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish",
			"x-message-ttl": int64(1000), "x-expires": int64(3_601_000), "x-dead-letter-exchange": "", "x-dead-letter-routing-key": q.Name,
		})
		require.NoError(t, err)
		publish(t, d, "orders.placed", "of now")
		got := next(t, c)
		require.Equal(t, "of now", got.Message().ID)
		require.NoError(t, ch.PublishWithContext(within(t, patience), "", old, true, false, amqp.Publishing{
			MessageId: "of before", DeliveryMode: amqp.Persistent,
			Headers: amqp.Table{"bannou-attempt": "2", "bannou-exchange": "bannou", "bannou-routing-key": "orders.placed"},
		}))
		require.NoError(t, got.Retry(within(t, patience), time.Second))
		seen := map[string]int{}
		for range 2 {
			got := next(t, c)
			require.Equal(t, "orders.placed", got.Message().RoutingKey)
			seen[got.Message().ID] = got.Attempt()
			require.NoError(t, got.Ack())
		}
		require.Equal(t, map[string]int{"of before": 2, "of now": 2}, seen)
	})
}

// A queue that is deleted takes its delay queues with it, also those that another process made.
func TestDelayQueuesGoWithTheirQueue(t *testing.T) {
	t.Parallel()
	url := servers.RabbitMQ(t).URL
	q := durable("orders.placed")
	one := open(t, url)
	c := subscribe(t, one, q)
	for _, delay := range []time.Duration{time.Hour, 50 * time.Minute, 59 * time.Second} {
		publish(t, one, "orders.placed", delay.String())
		require.NoError(t, next(t, c).Retry(within(t, patience), delay))
	}
	left := func(name string) int {
		found, err := foreign(t, url).QueueDeclarePassive(name, true, false, false, false, nil)
		if err != nil {
			return -1
		}
		return found.Messages
	}
	for late := time.Now().Add(patience); left(q.Name+".later.3600000") != 2 || left(q.Name+".later.60000") != 1; {
		require.True(t, time.Now().Before(late), "a leader that is busy is not waited for, and the broker counts 0 then")
	}
	require.NoError(t, c.Close(within(t, patience)))
	require.NoError(t, open(t, url).DeleteQueue(within(t, patience), q.Name))
	require.Equal(t, -1, left(q.Name+".later.3600000"))
	require.Equal(t, -1, left(q.Name+".later.60000"))
}
