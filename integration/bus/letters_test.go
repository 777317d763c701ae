package bus_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// readStore reads the whole dead-letter store; ack says which letters go.
func readStore(t *testing.T, d bus.Driver, ack func(id string) bool) (ids []string) {
	t.Helper()
	l, err := d.Letters(within(t, patience))
	require.NoError(t, err)
	for {
		x, err := l.Next(within(t, patience))
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		ids = append(ids, x.Message().ID)
		if ack(x.Message().ID) {
			require.NoError(t, x.Ack())
		}
	}
	require.NoError(t, l.Close(within(t, patience)))
	return ids
}

// A store of many windows is read in order, again and again, and what is taken out leaves the rest in order.
func TestManyLettersKeepTheirOrder(t *testing.T) {
	eachQueueType(t, func(t *testing.T, d *rabbitbus.Driver, _ string) {
		want := make([]string, 5_000)
		confirms := make([]func() error, len(want))
		for i := range want {
			want[i] = fmt.Sprintf("%05d", i)
		}
		for i, id := range want {
			confirms[i] = func() error {
				return d.Publish(within(t, patience), &bus.Message{Exchange: "bannou-dlx", RoutingKey: "dead-letter.a", ID: id,
					Body: []byte(strings.Repeat("x", i%100*30))})
			}
		}
		inParallel(t, 64, confirms)
		first := readStore(t, d, func(string) bool { return false })
		sorted := slices.Clone(first)
		slices.Sort(sorted)
		require.Equal(t, want, sorted, "all of them, each once")
		for range 2 { // also after having been given back
			sameOrder(t, first, readStore(t, d, func(string) bool { return false }))
		}
		third := func(id string) bool { return id[4]%3 == 0 }
		sameOrder(t, first, readStore(t, d, third))
		rest := slices.DeleteFunc(slices.Clone(first), third)
		sameOrder(t, rest, readStore(t, d, func(string) bool { return true }))
		require.Empty(t, readStore(t, d, func(string) bool { return true }))
	})
}

// A broker that comes back has all dead letters for the first who asks, also those that a reader held when it was killed. A quorum queue says
// at first that it has none, or fewer: TestBrokerDiesUnderReplay then found a replay that was done with the rest still in the store.
func TestLettersAreThereAfterARestart(t *testing.T) {
	t.Parallel()
	const count = 2000
	broker := servers.NewRabbitMQ(t, servers.RabbitOptions{})
	d := open(t, broker.URL, func(c *rabbitbus.Config) { c.QueueType = rabbitbus.Quorum })
	confirms := make([]func() error, count)
	for i := range confirms {
		confirms[i] = func() error {
			return d.Publish(within(t, patience), &bus.Message{Exchange: "bannou-dlx", RoutingKey: "dead-letter.a", ID: fmt.Sprint(i), Body: make([]byte, 1024)})
		}
	}
	inParallel(t, 64, confirms)
	held, err := d.Letters(within(t, patience))
	require.NoError(t, err)
	require.EqualValues(t, count, held.Count())
	for range count / 4 {
		_, err := held.Next(within(t, patience))
		require.NoError(t, err)
	}
	require.NoError(t, broker.Kill())
	restarted := make(chan error, 1)
	go func() { restarted <- broker.Restart(within(t, 2*patience)) }()
	_ = held.Close(within(t, patience))
	var after bus.Letters
	require.Eventually(t, func() bool {
		after, err = d.Letters(within(t, patience))
		return err == nil
	}, 2*patience, time.Millisecond)
	require.EqualValues(t, count, after.Count(), "acknowledged and lost")
	require.NoError(t, after.Close(within(t, patience)))
	require.NoError(t, <-restarted)
}

// sameOrder says where two long lists part.
func sameOrder(t *testing.T, want, got []string) {
	t.Helper()
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			require.Equal(t, want[i:min(i+20, len(want))], got[i:min(i+20, len(got))], "from letter %d of %d and %d", i, len(want), len(got))
		}
	}
	require.Len(t, got, len(want))
}

// inParallel runs all with so many at a time.
func inParallel(t *testing.T, workers int, all []func() error) {
	t.Helper()
	next, failed := make(chan func() error), make(chan error, workers)
	for range workers {
		go func() {
			var first error
			for f := range next {
				if err := f(); err != nil && first == nil {
					first = err
				}
			}
			failed <- first
		}()
	}
	for _, f := range all {
		next <- f
	}
	close(next)
	for range workers {
		require.NoError(t, <-failed)
	}
}

// A store that another version has made is used as it is.
func TestStoreWithOtherArguments(t *testing.T) {
	url := servers.RabbitMQ(t).URL
	ch := foreign(t, url)
	_, err := ch.QueueDeclare("bannou-dlx-store", true, false, false, false, amqp.Table{"x-max-length": int64(10)})
	require.NoError(t, err)
	d := open(t, url, func(*rabbitbus.Config) {})
	// RabbitMQ 4 answers the second of two connections that bind a queue before it routes by the binding that the first has asked for.
	letter := bus.Message{Exchange: "bannou-dlx", RoutingKey: "dead-letter.a", ID: "1", Mandatory: true}
	require.Eventually(t, func() bool { return d.Publish(within(t, patience), &letter) == nil }, patience, 10*time.Millisecond)
	require.Equal(t, []string{"1"}, readStore(t, d, func(string) bool { return true }))
}

// What the store drops by its limits is counted, once among all nodes, and logged.
func TestDroppedLettersAreCounted(t *testing.T) {
	t.Parallel()
	broker := servers.NewRabbitMQ(t, servers.RabbitOptions{})
	at, err := amqp.ParseURI(broker.URL)
	require.NoError(t, err)
	for _, kind := range []rabbitbus.QueueType{rabbitbus.Classic, rabbitbus.Quorum} {
		t.Run(string(kind), func(t *testing.T) {
			dlx := "dlx-" + string(kind)
			reader := metric.NewManualReader()
			provider := metric.NewMeterProvider(metric.WithReader(reader))
			log := new(lockedLog)
			var nodes [2]*rabbitbus.Driver
			for i := range nodes {
				nodes[i] = open(t, broker.URL, func(c *rabbitbus.Config) {
					c.QueueType, c.DeadLetterExchange = kind, dlx
					c.MeterProvider, c.Logger = provider, slog.New(slog.NewTextHandler(log, nil))
				})
			}
			require.NoError(t, nodes[0].Ready(within(t, patience)))
			_, err = broker.Ctl(within(t, time.Minute), "set_policy", "-p", at.Vhost, "small-"+dlx, "^"+dlx+"-store$",
				`{"max-length":2}`, "--apply-to", "queues")
			require.NoError(t, err)
			sent := 0
			require.Eventually(t, func() bool { // a policy takes its time to be in force
				if nodes[0].Publish(within(t, patience), bus.DeadLetter(&bus.Message{RoutingKey: "a.b", ID: "m"},
					bus.Discard{DeadLetterExchange: dlx, Reason: bus.DiscardPermanent, At: time.Now()})) != nil {
					return false
				}
				sent++
				return droppedCount(t, reader) > 0
			}, patience, 10*time.Millisecond)
			require.Eventually(t, func() bool { return droppedCount(t, reader) == int64(sent-2) }, patience, 10*time.Millisecond,
				"%d were sent, and the store keeps 2", sent)
			require.Contains(t, log.String(), "reason=maxlen")
			require.Contains(t, log.String(), "topic=a.b")
		})
	}
}

// droppedCount is what the metric says.
func droppedCount(t *testing.T, reader metric.Reader) (total int64) {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "bannou.rabbitbus.dropped" {
				for _, point := range sum.DataPoints {
					total += point.Value
				}
			}
		}
	}
	return total
}

// lockedLog is a log that is read while it is written.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Another program's event may have larger headers than its letter has room for. It is kept all the same, at the first failure.
func TestLetterOfLargeForeignHeaders(t *testing.T) {
	eachQueueType(t, func(t *testing.T, d *rabbitbus.Driver, url string) {
		b, err := bus.New(d, bus.Config{RetryDelay: 10 * time.Millisecond})
		require.NoError(t, err)
		defer func() { _ = b.Close(within(t, patience)) }()
		var calls atomic.Int64
		_, err = b.SubscribeRaw(within(t, patience), "orders.placed", func(context.Context, *bus.Received) error {
			calls.Add(1)
			return bus.Permanent(errors.New("no"))
		}, bus.SubscriptionOptions{Group: "g", Durable: true})
		require.NoError(t, err)
		require.NoError(t, foreign(t, url).PublishWithContext(within(t, patience), "bannou", "orders.placed", false, false, amqp.Publishing{
			MessageId: "foreign", Headers: amqp.Table{"small": "s", "large": strings.Repeat("x", 100<<10)}, Body: []byte("{}")}))
		require.Eventually(t, func() bool { return waiting(t, d, "bannou-dlx-store") == 1 }, patience, 10*time.Millisecond)
		l, err := b.ListLetters(within(t, patience), bus.LetterFilter{}, bus.LetterPage{})
		require.NoError(t, err)
		require.Len(t, l.Letters, 1)
		require.Equal(t, "foreign", l.Letters[0].MessageID)
		require.Equal(t, "s", l.Letters[0].Headers["small"])
		require.Equal(t, "large", l.Letters[0].Headers[bus.HeaderOmittedHeaders])
		require.EqualValues(t, 1, calls.Load())
	})
}
