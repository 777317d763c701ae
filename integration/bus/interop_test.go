package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
)

// stock is the configuration of an ordinary watermill-amqp program on our exchange: its own defaults, but for the
// exchange and the routing key.
func stock(url, group string) wamqp.Config {
	cfg := wamqp.NewDurablePubSubConfig(url, func(topic string) string { return topic + "." + group })
	cfg.Exchange.GenerateName = func(string) string { return "bannou" }
	cfg.Exchange.Type = "topic"
	cfg.Publish.GenerateRoutingKey = func(topic string) string { return topic }
	cfg.QueueBind.GenerateRoutingKey = func(queue string) string { return queue[:len(queue)-len("."+group)] }
	return cfg
}

type orderPlaced struct {
	EventID   string    `json:"eventId"`
	Timestamp time.Time `json:"timestamp"`
	Order     int64     `json:"order"`
}

func (*orderPlaced) EventName() string { return "OrderPlacedEvent" }

func (e *orderPlaced) Stamp(id string, at time.Time) (string, time.Time) {
	if e.EventID == "" {
		e.EventID, e.Timestamp = id, at
	}
	return e.EventID, e.Timestamp
}

// A stock program subscribes to what the bus publishes, and publishes what the bus handles.
func TestStockWatermill(t *testing.T) {
	t.Parallel()
	url := servers.RabbitMQ(t).URL
	b, err := bus.New(open(t, url), bus.Config{})
	require.NoError(t, err)
	handled := make(chan *orderPlaced, 10)
	require.NoError(t, bus.Handle(b, "orders.placed", "test", func(_ context.Context, e *orderPlaced) error {
		handled <- e
		return nil
	}, bus.SubscriptionOptions{}))
	ran := make(chan error, 1)
	go func() { ran <- b.Run(context.Background()) }()
	t.Cleanup(func() {
		require.NoError(t, b.Close(within(t, patience)))
		<-ran
	})
	require.Eventually(t, func() bool { return b.Ready(t.Context()) == nil }, patience, time.Millisecond) // its queue is there

	subscriber, err := wamqp.NewSubscriber(stock(url, "elsewhere"), watermill.NopLogger{})
	require.NoError(t, err)
	defer subscriber.Close()
	publisher, err := wamqp.NewPublisher(stock(url, "elsewhere"), watermill.NopLogger{})
	require.NoError(t, err)
	defer publisher.Close()
	received, err := subscriber.Subscribe(within(t, patience), "orders.placed")
	require.NoError(t, err)

	// Ours to them.
	id, err := b.PublishWith(within(t, patience), "orders.placed", &orderPlaced{Order: 1<<53 + 1}, bus.PublishOptions{Mandatory: true, PartitionKey: "k"})
	require.NoError(t, err)
	select {
	case m := <-received:
		require.Equal(t, id, m.UUID)
		require.Contains(t, string(m.Payload), "9007199254740993")
		require.Equal(t, "k", m.Metadata.Get("partition-key"))
		m.Ack()
	case <-time.After(patience):
		require.Fail(t, "the stock subscriber received nothing")
	}
	require.EqualValues(t, 1<<53+1, (<-handled).Order)

	// Theirs to us.
	require.Eventually(t, func() bool { // the queue of the handler may be declared a little after Running
		m := message.NewMessage(watermill.NewUUID(), []byte(`{"eventId":"e-1","timestamp":"2026-01-02T03:04:05Z","order":7}`))
		m.Metadata.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		if publisher.Publish("orders.placed", m) != nil {
			return false
		}
		select {
		case e := <-handled:
			return e.Order == 7 && e.EventID == "e-1"
		case <-time.After(time.Second):
			return false
		}
	}, patience, time.Millisecond)
}
