package bus_test

import (
	"context"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/daprtopics"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

const ofDapr = `{"specversion":"1.0","id":"7","source":"shop","type":"com.dapr.event.sent","datacontenttype":"application/json","data":{"n":1.10}}`

// sharedBus is a bus that shares the topic orders, and what its handler of a topic got.
func sharedBus(t *testing.T, inner daprtopics.Sharer, topic daprtopics.Topic, subscribe string, durable bool) (*bus.Bus, *daprtopics.Driver, chan *bus.Received) {
	t.Helper()
	shared, err := daprtopics.New(inner, daprtopics.Config{Topics: map[string]daprtopics.Topic{"orders": topic}})
	require.NoError(t, err)
	b, err := bus.New(shared, bus.Config{RetryDelay: 50 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	got := make(chan *bus.Received, 100)
	o := bus.SubscriptionOptions{Group: "native", Durable: durable}
	_, err = b.SubscribeRaw(t.Context(), subscribe, func(_ context.Context, r *bus.Received) error { got <- r; return nil }, o)
	require.NoError(t, err)
	return b, shared, got
}

// taken is the next of what a handler got.
func taken(t *testing.T, got chan *bus.Received) *bus.Received {
	t.Helper()
	select {
	case r := <-got:
		return r
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came")
		return nil
	}
}

// On RabbitMQ a native queue reads Dapr's exchange beside its own, by topic and by pattern, and leaves it when the settings say so; who else is bound
// there is told, and the queue of an app of Dapr keeps all that is its own.
func TestDaprsExchange(t *testing.T) {
	t.Parallel()
	server := servers.NewRabbitMQ(t, servers.RabbitOptions{Management: true})
	conn, err := amqp.Dial(server.URL)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, ch.ExchangeDeclare("Orders", amqp.ExchangeFanout, false, true, false, false, nil))
	_, err = ch.QueueDeclare("app-Orders", true, false, false, false, nil)
	require.NoError(t, err)
	require.NoError(t, ch.QueueBind("app-Orders", "", "Orders", false, nil))
	asDapr := func() {
		require.NoError(t, ch.PublishWithContext(t.Context(), "Orders", "", false, false, amqp.Publishing{ContentType: "text/plain", Body: []byte(ofDapr)}))
	}
	driver := func() *rabbitbus.Driver {
		return open(t, server.URL, func(c *rabbitbus.Config) { c.ManagementURL = server.API })
	}

	both := daprtopics.Topic{Name: "Orders", PubSub: "broker", Subscribe: true, Publish: true}
	b, shared, got := sharedBus(t, driver(), both, "orders", true)
	asDapr()
	first := taken(t, got)
	require.Equal(t, "orders", first.Topic)
	require.Contains(t, string(first.Body), `"n":1.10`)
	require.Contains(t, string(first.Body), `"eventId":"`+first.MessageID+`"`)
	id, err := b.PublishRaw(t.Context(), "orders", []byte(`{"n":2}`), bus.PublishOptions{PartitionKey: "p", Type: "Made"})
	require.NoError(t, err)
	second := taken(t, got)
	require.Equal(t, []string{id, "Made", "p"}, []string{second.MessageID, second.Type, second.Headers[bus.HeaderPartitionKey]})
	_, _, byPattern := sharedBus(t, driver(), both, "#", false)
	asDapr()
	require.Equal(t, first.MessageID, taken(t, got).MessageID, "the same event has the same id")
	require.Equal(t, "orders", taken(t, byPattern).Topic)

	require.Eventually(t, func() bool {
		readers, err := shared.Readers(t.Context(), "orders")
		return err == nil && len(readers) == 1 && readers[0].Name == "app-Orders" && readers[0].Messages == 3
	}, 30*time.Second, 100*time.Millisecond, "the app's queue alone, with all three events")

	require.NoError(t, b.Close(t.Context()))
	back, _, got := sharedBus(t, driver(), daprtopics.Topic{Name: "Orders"}, "orders", true)
	asDapr()
	_, err = back.PublishRaw(t.Context(), "orders", []byte(`{"n":3}`), bus.PublishOptions{})
	require.NoError(t, err)
	require.Contains(t, string(taken(t, got).Body), `"n":3`, "it reads Dapr's exchange no more")
	queue, err := ch.QueueDeclarePassive("app-Orders", true, false, false, false, nil)
	require.NoError(t, err)
	require.Equal(t, 4, queue.Messages, "and what is published natively does not go there")
}

// On Redis both lie in one stream. A native group reads Dapr's entries and its own; a failed one comes again out of its envelope; Dapr's group is told.
func TestDaprsStream(t *testing.T) {
	t.Parallel()
	server := servers.Redis(t)
	options, err := redis.ParseURL(server.URL)
	require.NoError(t, err)
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	require.NoError(t, client.XGroupCreateMkStream(t.Context(), "orders", "app", "0").Err())

	topic := daprtopics.Topic{PubSub: "streams", Subscribe: true, Publish: true}
	b, shared, got := sharedBus(t, openRedis(t, server.URL), topic, "orders", true)
	failing := make(chan int, 10)
	_, err = b.SubscribeRaw(t.Context(), "orders", func(_ context.Context, r *bus.Received) error {
		require.Contains(t, string(r.Body), `"eventId"`)
		failing <- r.Attempt
		if r.Attempt < 3 {
			return context.DeadlineExceeded
		}
		return nil
	}, bus.SubscriptionOptions{Group: "failing", Durable: true, Retry: &bus.RetryPolicy{Immediate: -1}})
	require.NoError(t, err)
	require.NoError(t, client.XAdd(t.Context(), &redis.XAddArgs{Stream: "orders", Values: map[string]any{"data": ofDapr}}).Err())
	require.Contains(t, string(taken(t, got).Body), `"n":1.10`)
	for want := 1; want <= 3; want++ {
		select {
		case attempt := <-failing:
			require.Equal(t, want, attempt)
		case <-time.After(30 * time.Second):
			t.Fatal("it did not come again")
		}
	}
	id, err := b.PublishRaw(t.Context(), "orders", []byte(`{"n":2}`), bus.PublishOptions{PartitionKey: "p", Type: "Made"})
	require.NoError(t, err)
	second := taken(t, got)
	require.Equal(t, []string{id, "Made", "p"}, []string{second.MessageID, second.Type, second.Headers[bus.HeaderPartitionKey]})
	readers, err := shared.Readers(t.Context(), "orders")
	require.NoError(t, err)
	require.Len(t, readers, 1)
	require.Equal(t, "app", readers[0].Name)
	entries, err := client.XRange(t.Context(), "orders", "-", "+").Result()
	require.NoError(t, err)
	require.Len(t, entries, 2)
	require.Contains(t, entries[1].Values["data"], `"pubsubname":"streams"`, "an entry as Dapr has them")
}
