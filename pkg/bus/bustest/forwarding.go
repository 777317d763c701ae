package bustest

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

func forwarding() []testCase {
	return []testCase{
		{
			name: "ForwardKeepsAllButTheExchange",
			why:  "a tap's reader sees what the subscribers of the topic see, and can tell events apart by their ids",
			run:  forwardKeepsAll,
		},
		{
			name: "ForwardEndsWhereItBegan",
			why:  "two taps that feed each other would fill the broker with copies of one event",
			run:  forwardEnds,
		},
		{
			name: "ForwardRefusesItsOwnExchanges",
			why:  "a copy on the exchange it came from comes back for ever; one among the dead letters is a failure that never was",
			run:  forwardRefuses,
		},
	}
}

// forwarder forwards the case's topic to an exchange of its own, which it returns with what arrives there.
func (f *fixture) forwarder() (exchange string, copies <-chan *bus.Message, outcomes <-chan error) {
	f.Helper()
	exchange = f.topic + ".audit"
	arrived, results := make(chan *bus.Message, 100), make(chan error, 100)
	f.consume(bus.Queue{
		Name: f.topic + ".copies", Exclusive: true, Prefetch: 100,
		Bindings: []bus.Binding{{Exchange: exchange, Pattern: f.topic}},
	}, func(d bus.Delivery) {
		arrived <- d.Message()
		_ = d.Ack()
	})
	b := f.node()
	_, err := b.SubscribeRaw(f.ctx(), f.topic, func(ctx context.Context, _ *bus.Received) error {
		err := b.Forward(ctx, exchange)
		results <- err
		return err
	}, bus.SubscriptionOptions{})
	require.NoError(f, err)
	return exchange, arrived, results
}

func forwardKeepsAll(f *fixture) {
	exchange, copies, _ := f.forwarder()
	sent := f.message(1)
	sent.Type, sent.ContentType, sent.CorrelationID, sent.Priority = "NotedEvent", "text/plain", "talk", 7
	sent.Expiration, sent.Timestamp = time.Hour, time.Unix(1_700_000_000, 0)
	sent.Headers = map[string]string{
		"tenant": "blue", "empty": "", bus.HeaderPartitionKey: "k", bus.HeaderCausationID: "cause", bus.HeaderSourceService: "shop",
		bus.HeaderTraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}
	require.NoError(f, f.setup.Node(f).Publish(f.ctx(), sent))
	got := next(f, "the copy", copies)
	require.Equal(f, exchange, got.Exchange)
	require.NotEmpty(f, got.Headers[bus.HeaderForwardedThrough])
	require.WithinDuration(f, sent.Timestamp, got.Timestamp, 0)
	same := *got
	same.Exchange, same.Timestamp = sent.Exchange, sent.Timestamp
	delete(same.Headers, bus.HeaderForwardedThrough)
	require.Equal(f, *sent, same)
}

func forwardEnds(f *fixture) {
	exchange, copies, outcomes := f.forwarder()
	d := f.setup.Node(f)
	looped := f.message(1)
	looped.Headers[bus.HeaderForwardedThrough] = "elsewhere," + exchange
	require.NoError(f, d.Publish(f.ctx(), looped))
	require.NoError(f, next(f, "the outcome", outcomes))
	fresh := f.message(2)
	fresh.Headers[bus.HeaderForwardedThrough] = "elsewhere"
	require.NoError(f, d.Publish(f.ctx(), fresh))
	got := next(f, "the copy", copies)
	require.Equal(f, []byte{2}, got.Body, "what was in the exchange does not go there again")
	own := f.setup.Config.Exchange
	if own == "" {
		own = "bannou"
	}
	require.Equal(f, "elsewhere,"+own+","+exchange, got.Headers[bus.HeaderForwardedThrough])
}

func forwardRefuses(f *fixture) {
	b := f.node(func(c *bus.Config) { c.DeadLetterExchange = "graves" })
	own := f.setup.Config.Exchange
	if own == "" {
		own = "bannou"
	}
	for _, exchange := range []string{"", own, "graves", "a b", "a,b"} {
		require.ErrorIs(f, b.CheckForward(exchange), bus.ErrInvalid, "%q", exchange)
	}
	require.NoError(f, b.CheckForward("audit"))
	err := b.Forward(f.ctx(), "audit")
	require.ErrorIs(f, err, bus.ErrInvalid, "outside of a handler there is nothing to forward")
	require.True(f, bus.IsPermanent(err))
}
