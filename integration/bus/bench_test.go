package bus_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
)

// BenchmarkPublish has 64 goroutines publish 1 KiB, confirmed, to a durable classic queue, in turn with amqp091 alone on
// one shared channel, and reports the ratio of the rates.
func BenchmarkPublish(b *testing.B) {
	url := servers.RabbitMQ(b).URL
	d := open(b, url)
	q := durable("bench.publish")
	c := subscribe(b, d, q)
	require.NoError(b, c.Close(within(b, patience)))
	conn, err := amqp.Dial(url)
	require.NoError(b, err)
	defer conn.Close()
	ch, err := conn.Channel()
	require.NoError(b, err)
	require.NoError(b, ch.Confirm(false))
	body := make([]byte, 1024)
	ours := func() error {
		return d.Publish(context.Background(), &bus.Message{RoutingKey: "bench.publish", ID: "id", Body: body})
	}
	raw := func() error {
		dc, err := ch.PublishWithDeferredConfirm("bannou", "bench.publish", false, false, amqp.Publishing{
			Headers: amqp.Table{"_watermill_message_uuid": "id"}, DeliveryMode: amqp.Persistent, MessageId: "id", Body: body})
		if err != nil {
			return err
		}
		dc.Wait()
		return nil
	}
	var oursTime, rawTime time.Duration
	for b.Loop() {
		oursTime += timed(b, ours)
		rawTime += timed(b, raw)
		_, err := ch.QueuePurge(q.Name, false)
		require.NoError(b, err)
	}
	n := float64(b.N * perRound)
	b.ReportMetric(n/oursTime.Seconds(), "ours/s")
	b.ReportMetric(n/rawTime.Seconds(), "raw/s")
	b.ReportMetric(rawTime.Seconds()/oursTime.Seconds(), "ours:raw")
	b.ReportMetric(0, "ns/op")
}

const perRound = 10_000

// timed publishes a round from 64 goroutines.
func timed(b *testing.B, publish func() error) time.Duration {
	start := time.Now()
	var left atomic.Int64
	left.Store(perRound)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := publish(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}
