package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// A topic's count is what waits, whichever node asks: not what is in work, and other programs' queues where the broker can
// tell of them.
func TestTopicsCountWhatWaits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		management bool
		messages   int64
	}{
		"by AMQP alone":         {false, 3},    // of the node's own queues
		"by the management API": {true, 3 + 5}, // and of all others
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker := servers.RabbitMQ(t)
			ch := foreign(t, broker.URL)
			require.NoError(t, ch.ExchangeDeclare("bannou", "topic", true, false, false, false, nil))
			_, err := ch.QueueDeclare("foreign", true, false, false, false, nil)
			require.NoError(t, err)
			require.NoError(t, ch.QueueBind("foreign", "orders.placed", "bannou", false, nil))

			release := make(chan struct{})
			begun := make(chan struct{}, 5)
			var nodes []*bus.Bus
			for range 2 {
				b, err := bus.New(open(t, broker.URL, func(cfg *rabbitbus.Config) {
					if c.management {
						cfg.ManagementURL = broker.API
					}
				}), bus.Config{})
				require.NoError(t, err)
				t.Cleanup(func() { assert.NoError(t, b.Close(within(t, patience))) })
				_, err = b.SubscribeRaw(within(t, patience), "orders.placed", func(context.Context, *bus.Received) error {
					begun <- struct{}{}
					<-release
					return nil
				}, bus.SubscriptionOptions{Group: "g", Durable: true, PrefetchCount: 1})
				require.NoError(t, err)
				nodes = append(nodes, b)
			}
			t.Cleanup(func() { close(release) })
			for range 5 {
				_, err := nodes[0].PublishRaw(within(t, patience), "orders.placed", []byte(`{}`), bus.PublishOptions{})
				require.NoError(t, err)
			}
			<-begun
			<-begun // each node works on one
			for i, b := range nodes {
				require.EventuallyWithT(t, func(t *assert.CollectT) {
					topics, err := b.Topics(context.Background())
					if !assert.NoError(t, err) {
						return
					}
					for _, topic := range topics {
						if topic.Name == "orders.placed" {
							assert.Equal(t, bus.TopicInfo{Name: "orders.placed", Exchange: "bannou", MessageCount: c.messages, ConsumerCount: 2}, topic)
							return
						}
					}
					assert.Fail(t, "the topic is not listed")
				}, patience, 50*time.Millisecond, "node %d", i)
			}
		})
	}
}
