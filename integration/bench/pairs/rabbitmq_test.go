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
	compare(b, "publish without waiting, window 1000/1_caller", broker.publishAsync(rawAsync), broker.publishAsync(busAsync))
	compare(b, "consume with prefetch 100/1_subscription", broker.consume(rawConsumer), broker.consume(busConsumer))
	compare(b, "publish to handled/16_callers", broker.publishToHandled(16, rawPublisher, rawConsumer), broker.publishToHandled(16, busPublisher, busConsumer))
	compare(b, "publish to handled at half the peak rate, 99th percentile/16_callers",
		broker.paced(16, rawPublisher, rawConsumer), broker.paced(16, busPublisher, busConsumer))
}

// A broker is where the messages go, and a channel to see what became of them.
type broker struct {
	url     string
	channel *amqp.Channel
	peak    float64 // events a second of the raw client, publish to handled, as last measured
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

// window is how many messages are under way at once where nobody waits for each.
const window = 1000

// An asyncPublisher sends an event; what it returns waits for its confirmation.
type asyncPublisher func(ctx context.Context, e *placed) (wait func() error, err error)

// publishAsync measures one caller that keeps a window of messages under way.
func (r *broker) publishAsync(open func(b *testing.B, url string) asyncPublisher) func(b *testing.B) {
	return func(b *testing.B) {
		send := open(b, r.url)
		r.empty(b)
		ctx := b.Context()
		underWay := make(chan func() error, window)
		confirmed := make(chan struct{})
		b.ReportAllocs()
		b.ResetTimer()
		go func() {
			defer close(confirmed)
			for wait := range underWay {
				if err := wait(); err != nil {
					b.Error(err)
				}
			}
		}()
		for number := range b.N {
			wait, err := send(ctx, &placed{Number: number, Text: text})
			if err != nil {
				b.Error(err)
				break
			}
			underWay <- wait
		}
		close(underWay)
		<-confirmed
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

// calibrated is how many events a second the raw client carries from publish to handled; it is measured once.
func (r *broker) calibrated(b *testing.B, callers int) float64 {
	if r.peak > 0 {
		return r.peak
	}
	const events = 5000
	r.empty(b)
	handled, gate := newTally(events), make(chan struct{})
	close(gate)
	stop := rawConsumer(b, r.url, gate, func(e *placed) { handled.add(e.Number) })
	send := rawPublisher(b, r.url)
	begin := time.Now()
	together(b, callers, events, func(caller, number int) error {
		return send(b.Context(), &placed{Caller: caller, Number: number, Text: text})
	})
	handled.wait(b)
	r.peak = events / time.Since(begin).Seconds()
	stop()
	return r.peak
}

// paced measures the time from an event's due time to its handling, at half the rate that the raw client can carry.
func (r *broker) paced(callers int, openPublisher func(b *testing.B, url string) publisher, openConsumer consumer) func(b *testing.B) {
	return func(b *testing.B) {
		rate := r.calibrated(b, callers) / 2
		r.empty(b)
		p, n := newPace(b.N, rate)
		handled, gate := newTally(n), make(chan struct{})
		close(gate)
		stop := openConsumer(b, r.url, gate, func(e *placed) {
			p.handled(e.Number)
			handled.add(e.Number)
		})
		send := openPublisher(b, r.url)
		ctx := b.Context()
		p.start()
		together(b, callers, n, func(caller, number int) error {
			p.wait(number)
			return send(ctx, &placed{Caller: caller, Number: number, Text: text})
		})
		handled.wait(b)
		b.StopTimer()
		stop()
		handled.check(b)
		p.report(b)
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
	send := rawAsync(b, url)
	return func(ctx context.Context, e *placed) error {
		wait, err := send(ctx, e)
		if err != nil {
			return err
		}
		return wait()
	}
}

func rawAsync(b *testing.B, url string) asyncPublisher {
	channel := dial(b, url)
	require.NoError(b, channel.Confirm(false))
	return func(ctx context.Context, e *placed) (wait func() error, err error) {
		body, err := e.encode()
		if err != nil {
			return nil, err
		}
		confirmation, err := channel.PublishWithDeferredConfirmWithContext(ctx, "bannou", topic, false, false, amqp.Publishing{
			Headers:     amqp.Table{"_watermill_message_uuid": e.EventID, bus.HeaderSourceService: "bannou"},
			ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: e.EventID, Timestamp: e.Timestamp, Type: e.EventName(), Body: body,
		})
		if err != nil {
			return nil, err
		}
		return func() error {
			confirmed, err := confirmation.WaitContext(ctx)
			if err == nil && !confirmed {
				err = errNotConfirmed
			}
			return err
		}, nil
	}
}

func newBus(b *testing.B, url string) *bus.Bus {
	driver, err := rabbitbus.New(rabbitbus.Config{URLs: []string{url}})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, driver.Close(context.Background())) })
	// The raw client has its connection before the clock runs, too.
	require.Eventually(b, func() bool { return driver.Ready(b.Context()) == nil }, patience, time.Millisecond)
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

func busAsync(b *testing.B, url string) asyncPublisher {
	x := newBus(b, url)
	return func(ctx context.Context, e *placed) (wait func() error, err error) {
		p, err := x.PublishAsync(ctx, topic, e, bus.PublishOptions{})
		if err != nil {
			return nil, err
		}
		return p.Wait, nil
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
