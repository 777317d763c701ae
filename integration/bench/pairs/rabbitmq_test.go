package pairs

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

const (
	group    = "bench"
	queue    = topic + "." + group
	prefetch = 100
)

// BenchmarkRabbitMQ uses the bus's own durable queue on both sides, persistent messages with the same properties, one
// connection to publish and one to consume.
func BenchmarkRabbitMQ(b *testing.B) {
	server := servers.NewRabbitMQ(b, servers.RabbitOptions{})
	broker := &broker{url: server.URL}
	broker.channel = dial(b, server.URL)
	declare(b, server.URL)
	compare(b, "publish confirmed/64_callers", broker.publish(64, rawPublisher), broker.publish(64, busPublisher))
	compare(b, "consume with prefetch 100/1_subscription", broker.consume(rawConsumer), broker.consume(busConsumer))
	compare(b, "publish to handled/16_callers", broker.publishToHandled(16, rawPublisher, rawConsumer), broker.publishToHandled(16, busPublisher, busConsumer))
}

// A broker is where the messages go, and a channel to see what became of them.
type broker struct {
	url     string
	channel *amqp.Channel
}

// A publisher sends an event and waits for its confirmation.
type publisher func(ctx context.Context, e *placed) error

// A consumer hands each event to handle, once gate is closed, and acknowledges it. Stop ends it when its acknowledgements
// are sent.
type consumer func(b *testing.B, url string, gate <-chan struct{}, handle func(*placed)) (stop func())

// publish measures confirmed messages; all of them are in the queue afterwards.
func (r *broker) publish(callers int, open func(b *testing.B, url string) publisher) func(b *testing.B) {
	return func(b *testing.B) {
		send := open(b, r.url)
		r.empty(b)
		ctx := b.Context()
		b.ReportAllocs()
		b.ResetTimer()
		together(b, callers, b.N, func(caller, number int) error {
			return send(ctx, &placed{Caller: caller, Number: number, Text: text})
		})
		b.StopTimer()
		require.Equal(b, b.N, r.waiting(b), "confirmed messages in the queue")
		r.empty(b)
	}
}

// consume measures how fast a full queue is read, from the moment when the first deliveries have arrived.
func (r *broker) consume(open consumer) func(b *testing.B) {
	return func(b *testing.B) {
		r.empty(b)
		r.fill(b, b.N)
		handled, gate := newTally(b.N), make(chan struct{})
		stop := open(b, r.url, gate, func(e *placed) { handled.add(e.Number) })
		require.Eventually(b, func() bool { return r.waiting(b) <= b.N-min(b.N, prefetch) }, patience, time.Millisecond)
		b.ReportAllocs()
		b.ResetTimer()
		close(gate)
		handled.wait(b)
		b.StopTimer()
		stop()
		handled.check(b)
		require.Zero(b, r.waiting(b), "messages not acknowledged")
	}
}

// publishToHandled measures confirmed messages until the last of them was handled.
func (r *broker) publishToHandled(callers int, openPublisher func(b *testing.B, url string) publisher, openConsumer consumer) func(b *testing.B) {
	return func(b *testing.B) {
		r.empty(b)
		handled, gate := newTally(b.N), make(chan struct{})
		close(gate)
		stop := openConsumer(b, r.url, gate, func(e *placed) { handled.add(e.Number) })
		send := openPublisher(b, r.url)
		ctx := b.Context()
		b.ReportAllocs()
		b.ResetTimer()
		together(b, callers, b.N, func(caller, number int) error {
			return send(ctx, &placed{Caller: caller, Number: number, Text: text})
		})
		handled.wait(b)
		b.StopTimer()
		stop()
		handled.check(b)
		require.Zero(b, r.waiting(b), "messages not acknowledged")
	}
}

func (r *broker) waiting(b *testing.B) int {
	q, err := r.channel.QueueDeclarePassive(queue, true, false, false, false, nil)
	require.NoError(b, err)
	return q.Messages
}

func (r *broker) empty(b *testing.B) {
	_, err := r.channel.QueuePurge(queue, false)
	require.NoError(b, err)
}

// fill puts events into the queue.
func (r *broker) fill(b *testing.B, n int) {
	send := rawPublisher(b, r.url)
	together(b, 64, n, func(caller, number int) error {
		return send(b.Context(), &placed{Caller: caller, Number: number, Text: text})
	})
}

func dial(b *testing.B, url string) *amqp.Channel {
	connection, err := amqp.Dial(url)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, connection.Close()) })
	channel, err := connection.Channel()
	require.NoError(b, err)
	return channel
}

var errNotConfirmed = errors.New("the broker refused a message")

// rawPublisher is one channel that all callers share, as amqp091 allows.
func rawPublisher(b *testing.B, url string) publisher {
	channel := dial(b, url)
	require.NoError(b, channel.Confirm(false))
	return func(ctx context.Context, e *placed) error {
		body, err := e.encode()
		if err != nil {
			return err
		}
		confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, "bannou", topic, false, false, amqp.Publishing{
			Headers:     amqp.Table{"_watermill_message_uuid": e.EventID, bus.HeaderSourceService: "bannou"},
			ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: e.EventID, Timestamp: e.Timestamp, Type: e.EventName(), Body: body,
		})
		if err != nil {
			return err
		}
		confirmed, err := confirmation.WaitContext(ctx)
		if err == nil && !confirmed {
			err = errNotConfirmed
		}
		return err
	}
}

func newBus(b *testing.B, url string) *bus.Bus {
	driver, err := rabbitbus.New(rabbitbus.Config{URLs: []string{url}})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, driver.Close(context.Background())) })
	x, err := bus.New(driver, bus.Config{PrefetchCount: prefetch})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, x.Close(context.Background())) })
	return x
}

func busPublisher(b *testing.B, url string) publisher {
	x := newBus(b, url)
	return func(ctx context.Context, e *placed) error {
		_, err := x.Publish(ctx, topic, e)
		return err
	}
}

// rawConsumer reads, decodes and acknowledges one delivery after another.
func rawConsumer(b *testing.B, url string, gate <-chan struct{}, handle func(*placed)) (stop func()) {
	channel := dial(b, url)
	require.NoError(b, channel.Qos(prefetch, 0, false))
	name := uuid.NewString()
	deliveries, err := channel.ConsumeWithContext(context.Background(), queue, name, false, false, false, false, nil)
	require.NoError(b, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-gate
		for d := range deliveries {
			e, err := decode(d.Body)
			if err != nil {
				b.Error(err)
				continue
			}
			e.check(b)
			handle(e)
			if err := d.Ack(false); err != nil {
				b.Error(err)
			}
		}
	}()
	return func() {
		require.NoError(b, channel.Cancel(name, false))
		<-ended
		require.NoError(b, channel.Close())
	}
}

func busConsumer(b *testing.B, url string, gate <-chan struct{}, handle func(*placed)) (stop func()) {
	x := newBus(b, url)
	require.NoError(b, bus.Handle(x, topic, "bench", func(_ context.Context, e *placed) error {
		<-gate
		e.check(b)
		handle(e)
		return nil
	}, bus.SubscriptionOptions{Group: group}))
	return runBus(b, x)
}

// declare has the bus make its queue.
func declare(b *testing.B, url string) {
	gate := make(chan struct{})
	close(gate)
	busConsumer(b, url, gate, func(*placed) {})()
}
