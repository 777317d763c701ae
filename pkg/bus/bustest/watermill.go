package bustest

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

func plainWatermill() []testCase {
	return []testCase{
		{
			name: "PlainHandlerOnTheRouter",
			why:  "a program that knows only Watermill is a first-class citizen: same router, same queues, same retries",
			run:  plainHandler,
		},
		{
			name: "PlainHandlerIsDeadLettered",
			why:  "Watermill's own nack means 'again, now': on the bus's router it must not become a hot loop",
			run:  plainHandlerIsDeadLettered,
		},
	}
}

func plainHandler(f *fixture) {
	b := f.node()
	second := f.topic + ".second"
	b.Router().AddHandler("plain", f.topic, b.Subscriber(bus.SubscriptionOptions{Group: "plain"}), second, b.Publisher(),
		func(msg *message.Message) ([]*message.Message, error) {
			r, ok := bus.ReceivedFrom(msg.Context())
			if !ok || r.MessageID != msg.UUID {
				f.Errorf("the handler's context does not tell its delivery: %+v", r)
			}
			out := message.NewMessage("out-"+msg.UUID, msg.Payload)
			out.Metadata.Set("tenant", msg.Metadata.Get("tenant"))
			return []*message.Message{out}, nil
		})
	got := make(chan *bus.Received, 1)
	_, err := b.SubscribeRaw(f.ctx(), second, func(_ context.Context, r *bus.Received) error {
		got <- r
		return nil
	}, bus.SubscriptionOptions{})
	require.NoError(f, err)
	f.run(b)
	id := f.publish(b, &Noted{Number: 4}, bus.PublishOptions{Headers: map[string]string{"tenant": "blue"}})
	r := next(f, "what the plain handler published", got)
	require.Equal(f, "out-"+id, r.MessageID)
	require.Equal(f, "blue", r.Headers["tenant"])
	require.EqualValues(f, 4, number(f, r))
}

func plainHandlerIsDeadLettered(f *fixture) {
	b := f.node(func(c *bus.Config) { c.RetryMaxAttempts = 1; c.ImmediateRetries = -1 })
	letters := f.deadLetters()
	calls := make(chan struct{}, 100)
	b.Router().AddConsumerHandler("plain", f.topic, b.Subscriber(bus.SubscriptionOptions{Group: "plain"}), func(*message.Message) error {
		calls <- struct{}{}
		return errBroken
	})
	f.run(b)
	f.publish(b, &Noted{}, bus.PublishOptions{})
	letter := next(f, "the dead letter", letters)
	require.Equal(f, f.topic+".plain", letter.Headers[bus.HeaderOriginalQueue])
	next(f, "the first call", calls)
	next(f, "the second call", calls)
	none(f, "a third call", calls)
}

// WatermillGoroutines are what a check for leaked goroutines has to pass over after RunWatermill. Watermill's suite reads
// through many subscribers at once, by a type internal to it, and stops when it has enough: a message that was given back
// and comes again then leaves its reading goroutines behind. Nothing of the bus runs in them.
func WatermillGoroutines() []goleak.Option {
	const subscribe = "github.com/ThreeDotsLabs/watermill/internal/subscriber.(*multiplier).Subscribe"
	return []goleak.Option{goleak.IgnoreAnyFunction(subscribe + ".func2"), goleak.IgnoreAnyFunction(subscribe + ".func3")}
}

// RunWatermill runs Watermill's own suite on the bus as a Watermill publisher and subscriber, twice: one message at a
// time, where order is guaranteed, and ten at a time. With -short it runs Watermill's small numbers.
//
// Watermill skips some of its tests by the features that are named here:
//   - TestReconnect runs a shell command that restarts the broker. A test's broker is a child of its own process, which
//     no command knows how to restart; tests of the driver that owns the broker kill and restart it under load instead.
//   - TestNewSubscriberReceivesOldMessages is for logs such as Kafka, which keep what was acknowledged. A queue does not.
//   - TestPublishSubscribeInOrder and TestNoAck need order, so they run one message at a time only.
func RunWatermill(t *testing.T, setup func(t testing.TB) Setup) {
	for name, prefetch := range map[string]int{"InOrder": 1, "SideBySide": 10} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			pubSub := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
				cfg := s.Config
				cfg.CloseTimeout = patience
				b, err := bus.New(s.Node(t), cfg)
				require.NoError(t, err)
				t.Cleanup(func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Second)
					defer cancel()
					_ = b.Close(ctx)
				})
				return b.Publisher(), b.Subscriber(bus.SubscriptionOptions{Group: group, PrefetchCount: prefetch})
			}
			tests.TestPubSub(t, tests.Features{
				ConsumerGroups:                      true,
				GuaranteedOrder:                     prefetch == 1,
				GuaranteedOrderWithSingleSubscriber: true,
				Persistent:                          true,
				ForceShort:                          testing.Short(),
			}, func(t *testing.T) (message.Publisher, message.Subscriber) { return pubSub(t, "watermill") }, pubSub)
		})
	}
}
