package bustest

import (
	"context"
	"errors"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

func subscribing() []testCase {
	return []testCase{
		{
			name: "PatternOfOneSession",
			why:  "a client's channel gets its own session's events and nobody else's",
			run:  patternOfOneSession,
		},
		{
			name: "HashMatchesAnyDepth",
			why:  "taps and audits read whole branches of topics",
			run:  hashMatchesAnyDepth,
		},
		{
			name: "ClosedSubscriptionLeavesNothing",
			why:  "thousands of sessions come and go: a queue left behind by each would fill the broker",
			run:  closedLeavesNothing,
		},
		{
			name: "DurableSubscriptionIsResumed",
			why:  "a callback that is away for a deploy gets what it missed; one that is removed collects no more",
			run:  durableIsResumed,
		},
		{
			name: "ExpiringSubscriptionWaitsForAWhile",
			why:  "a client that comes back in time has missed nothing, one that does not leaves nothing behind",
			run:  expiringWaits,
		},
		{
			name: "GroupIsSharedAcrossNodes",
			why:  "dynamic workers on two nodes share a queue as static ones do",
			run:  groupIsShared,
		},
		{
			name: "ManySubscriptionsOnOneTopic",
			why:  "one announcement reaches every connected client",
			run:  manySubscriptions,
		},
	}
}

func (f *fixture) subscribe(b *bus.Bus, topic string, o bus.SubscriptionOptions) (*bus.Subscription, <-chan *bus.Received) {
	f.Helper()
	got := make(chan *bus.Received, 1000)
	sub, err := b.SubscribeRaw(f.ctx(), topic, func(_ context.Context, r *bus.Received) error {
		got <- r
		return nil
	}, o)
	require.NoError(f, err)
	return sub, got
}

func (f *fixture) publishTo(b *bus.Bus, topic string, n int64) {
	f.Helper()
	_, err := b.Publish(f.ctx(), topic, &Noted{Number: n})
	require.NoError(f, err)
}

func patternOfOneSession(f *fixture) {
	b := f.node()
	_, one := f.subscribe(b, f.topic+".s-1.*", bus.SubscriptionOptions{PrefetchCount: 1})
	_, two := f.subscribe(b, f.topic+".s-2.*", bus.SubscriptionOptions{})
	f.publishTo(b, f.topic+".s-1.capabilities", 1)
	f.publishTo(b, f.topic+".s-2.capabilities", 2)
	f.publishTo(b, f.topic+".s-1.deep.deeper", 3)
	f.publishTo(b, f.topic+".s-1", 4)
	f.publishTo(b, f.topic+".s-1.closed", 5)
	seen := map[string]int64{} // by topic: order is promised within a topic, not between topics
	for range 2 {
		r := next(f, "session 1", one)
		seen[r.Topic] = number(f, r)
	}
	require.Equal(f, map[string]int64{f.topic + ".s-1.capabilities": 1, f.topic + ".s-1.closed": 5}, seen,
		"the topic, not the pattern, and * is exactly one word")
	require.EqualValues(f, 2, number(f, next(f, "session 2", two)))
	none(f, "session 1's events at session 2", two)
}

func hashMatchesAnyDepth(f *fixture) {
	b := f.node()
	_, got := f.subscribe(b, f.topic+".#", bus.SubscriptionOptions{PrefetchCount: 1})
	topics := []string{f.topic, f.topic + ".a", f.topic + ".a.b.c"}
	for i, topic := range topics {
		f.publishTo(b, topic, int64(i))
	}
	var seen []string // order is promised within a topic, not between topics
	for range topics {
		seen = append(seen, next(f, "an event", got).Topic)
	}
	require.ElementsMatch(f, topics, seen)
}

func closedLeavesNothing(f *fixture) {
	b := f.node()
	d := f.setup.Node(f)
	sub, got := f.subscribe(b, f.topic, bus.SubscriptionOptions{})
	require.Contains(f, sub.Queue(), f.topic+".dynamic.")
	require.Equal(f, f.topic, sub.Topic())
	require.NotEmpty(f, sub.ID())
	f.publishTo(b, f.topic, 1)
	next(f, "an event", got)
	select {
	case <-sub.Done():
		f.Fatal("done before it was closed")
	default:
	}
	require.NoError(f, sub.Close(f.ctx()))
	require.NoError(f, sub.Close(f.ctx()), "closing again does nothing")
	next(f, "the end", sub.Done())
	require.Eventually(f, func() bool { return f.gone(d, sub.Queue()) }, patience, 10*time.Millisecond,
		"the queue goes with its subscription")
	_, err := b.PublishWith(f.ctx(), f.topic, &Noted{}, bus.PublishOptions{Mandatory: true})
	require.ErrorIs(f, err, bus.ErrUnroutable)
	none(f, "an event after the end", got)
}

func durableIsResumed(f *fixture) {
	b := f.node()
	d := f.setup.Node(f)
	o := bus.SubscriptionOptions{Group: "hooks", Durable: true}
	sub, got := f.subscribe(b, f.topic, o)
	require.Equal(f, f.topic+".hooks", sub.Queue())
	f.publishTo(b, f.topic, 1)
	require.EqualValues(f, 1, number(f, next(f, "the event", got)))
	require.NoError(f, sub.Close(f.ctx()))
	f.publishTo(b, f.topic, 2)
	none(f, "an event while it is closed", got)

	sub, got = f.subscribe(b, f.topic, o)
	require.EqualValues(f, 2, number(f, next(f, "what came meanwhile", got)))
	require.NoError(f, sub.Remove(f.ctx()))
	require.Eventually(f, func() bool { return f.gone(d, sub.Queue()) }, patience, 10*time.Millisecond)
	f.publishTo(b, f.topic, 3)
	_, got = f.subscribe(b, f.topic, o)
	f.publishTo(b, f.topic, 4)
	require.EqualValues(f, 4, number(f, next(f, "only what came after it was made anew", got)))
}

func expiringWaits(f *fixture) {
	b, other := f.node(), f.node()
	o := bus.SubscriptionOptions{Queue: f.topic + ".client", Durable: true, Expires: 4 * time.Second, PrefetchCount: 5}
	sub, got := f.subscribe(b, f.topic, o)
	f.publishTo(b, f.topic, 1)
	require.EqualValues(f, 1, number(f, next(f, "the event", got)))
	require.NoError(f, sub.Close(f.ctx()))
	f.publishTo(b, f.topic, 2)

	sub, got = f.subscribe(other, f.topic, o)
	require.EqualValues(f, 2, number(f, next(f, "what came meanwhile, on another node", got)))
	require.NoError(f, sub.Close(f.ctx()))
	require.Eventually(f, func() bool {
		_, err := b.PublishWith(f.ctx(), f.topic, &Noted{}, bus.PublishOptions{Mandatory: true})
		return errors.Is(err, bus.ErrUnroutable)
	}, patience, 200*time.Millisecond, "the queue goes when nobody has read it for so long")

	ignore := func(context.Context, *bus.Received) error { return nil }
	_, err := b.SubscribeRaw(f.ctx(), f.topic, ignore, bus.SubscriptionOptions{Expires: time.Minute})
	require.ErrorIs(f, err, bus.ErrInvalid, "what goes with its reader cannot wait for another")
}

func groupIsShared(f *fixture) {
	one, two := f.node(), f.node()
	o := bus.SubscriptionOptions{Group: "crowd", Durable: true, PrefetchCount: 1}
	hold := make(chan struct{})
	got := make(chan int64, 100)
	worker := func(ctx context.Context, e *Noted) error {
		got <- e.Number
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return nil
	}
	for _, b := range []*bus.Bus{one, two} {
		_, err := bus.Subscribe(f.ctx(), b, f.topic, worker, o)
		require.NoError(f, err)
	}
	f.publish(one, &Noted{Number: 1}, bus.PublishOptions{})
	f.publish(one, &Noted{Number: 2}, bus.PublishOptions{})
	a, b := next(f, "one of two", got), next(f, "the other", got)
	require.NotEqual(f, a, b, "each takes one while it holds the other up")
	close(hold)
}

func manySubscriptions(f *fixture) {
	const count = 100
	b := f.node()
	var all []<-chan *bus.Received
	for range count {
		_, got := f.subscribe(b, f.topic, bus.SubscriptionOptions{PrefetchCount: 1})
		all = append(all, got)
	}
	f.publishTo(b, f.topic, 7)
	for _, got := range all {
		require.EqualValues(f, 7, number(f, next(f, "a client", got)))
	}
}
