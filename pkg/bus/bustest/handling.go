package bustest

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

func handling() []testCase {
	return []testCase{
		{
			name: "EachGroupGetsACopy",
			why:  "services do not know of one another: one that listens must not take events from another",
			run:  eachGroupGetsACopy,
		},
		{
			name: "InstancesOfAGroupCompete",
			why:  "two instances of a service share its work; an event that both handle is a bill sent twice",
			run:  instancesCompete,
		},
		{
			name: "NoMoreThanPrefetchAtOnce",
			why:  "prefetch is what keeps a burst of events from exhausting a service's memory and database connections",
			run:  noMoreThanPrefetch,
		},
		{
			name: "SameKeyInOrder",
			why:  "an account's events must be handled in order, and must not make other accounts wait",
			run:  sameKeyInOrder,
		},
		{
			name: "SubscriptionBeginsWhenMade",
			why:  "what was published before a subscription existed is not its business; all after is",
			run:  subscriptionBeginsWhenMade,
		},
		{
			name: "DurableQueueKeepsWhileNobodyReads",
			why:  "a service is redeployed without losing what happened meanwhile",
			run:  durableQueueKeeps,
		},
		{
			name: "TopicsAreListedWithCounts",
			why:  "an operator finds the queue that nobody reads by its count",
			run:  topicsAreListed,
		},
		{
			name: "HigherPriorityFirst",
			why:  "a ban overtakes a backlog of telemetry",
			run:  higherPriorityFirst,
			need: func(x Features) bool { return x.Priorities },
		},
	}
}

func eachGroupGetsACopy(f *fixture) {
	b, other := f.node(), f.node()
	mail := f.handle(b, "mail", bus.SubscriptionOptions{})
	audit := f.handle(b, "audit", bus.SubscriptionOptions{})
	search := f.handle(other, "search", bus.SubscriptionOptions{Group: "search"})
	f.run(b)
	f.run(other)
	for i := range int64(5) {
		f.publish(b, &Noted{Number: i}, bus.PublishOptions{})
	}
	for name, got := range map[string]<-chan *bus.Received{"mail": mail, "audit": audit, "search": search} {
		seen := map[int64]bool{}
		for range 5 {
			seen[number(f, next(f, name, got))] = true
		}
		require.Len(f, seen, 5, name)
		none(f, name, got)
	}
}

func instancesCompete(f *fixture) {
	const events = 40
	var handled sync.Map
	var count atomic.Int64
	both := make(chan struct{})
	done := make(chan struct{})
	var workers atomic.Int64
	instance := func() *bus.Bus {
		b := f.node()
		var first sync.Once
		require.NoError(f, bus.Handle(b, f.topic, "worker", func(ctx context.Context, e *Noted) error {
			first.Do(func() {
				if workers.Add(1) == 2 {
					close(both)
				}
			})
			select { // the first events wait until both instances have one
			case <-both:
			case <-ctx.Done():
				return ctx.Err()
			}
			if _, again := handled.LoadOrStore(e.Number, true); again {
				select {
				case <-done: // an instance ends, and what it had no time to confirm comes to the other
				default:
					f.Errorf("event %d was handled twice", e.Number)
				}
				return nil
			}
			if count.Add(1) == events {
				close(done)
			}
			return nil
		}, bus.SubscriptionOptions{PrefetchCount: 5}))
		f.run(b)
		return b
	}
	b := instance()
	instance()
	for i := range int64(events) {
		f.publish(b, &Noted{Number: i}, bus.PublishOptions{})
	}
	next(f, "all events handled by two instances", done)
}

func noMoreThanPrefetch(f *fixture) {
	const prefetch, events = 4, 20
	b := f.node()
	var at, most atomic.Int64
	entered := make(chan struct{}, events)
	leave := make(chan struct{})
	require.NoError(f, bus.Handle(b, f.topic, "slow", func(ctx context.Context, _ *Noted) error {
		now := at.Add(1)
		defer at.Add(-1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		entered <- struct{}{}
		select {
		case <-leave:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}, bus.SubscriptionOptions{PrefetchCount: prefetch}))
	f.run(b)
	for i := range int64(events) {
		f.publish(b, &Noted{Number: i}, bus.PublishOptions{})
	}
	for range prefetch {
		next(f, "as many handlers as prefetch allows, side by side", entered)
	}
	for range events - prefetch {
		leave <- struct{}{}
		next(f, "one leaves, one enters", entered)
	}
	close(leave)
	require.EqualValues(f, prefetch, most.Load(), "handlers at work at once")
}

func sameKeyInOrder(f *fixture) {
	const keys, each = 6, 40
	b := f.node()
	var mu sync.Mutex
	lists := make(map[string][]int64)
	busy := make(map[string]bool)
	ready := make(chan struct{})
	done := make(chan struct{})
	total := 0
	require.NoError(f, bus.Handle(b, f.topic, "ledger", func(ctx context.Context, e *Noted) error {
		mu.Lock()
		if busy[e.Text] {
			f.Errorf("two events of key %s at once", e.Text)
		}
		busy[e.Text] = true
		if total++; total == 2 {
			close(ready) // two are at work at once, so different keys do not wait for each other
		}
		mu.Unlock()
		select {
		case <-ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		runtime.Gosched()
		mu.Lock()
		defer mu.Unlock()
		busy[e.Text] = false
		lists[e.Text] = append(lists[e.Text], e.Number)
		if n := 0; total == keys*each {
			for _, l := range lists {
				n += len(l)
			}
			if n == total {
				close(done)
			}
		}
		return nil
	}, bus.SubscriptionOptions{PrefetchCount: 16}))
	f.run(b)
	for i := range int64(each) {
		for k := range keys {
			key := fmt.Sprintf("account-%d", k)
			f.publish(b, &Noted{Number: i, Text: key}, bus.PublishOptions{PartitionKey: key})
		}
	}
	next(f, "all events", done)
	for key, list := range lists {
		for i, n := range list {
			require.EqualValues(f, i, n, "key %s came in the order %v", key, list)
		}
	}
}

func subscriptionBeginsWhenMade(f *fixture) {
	b := f.node()
	f.publish(b, &Noted{Number: 1}, bus.PublishOptions{})
	got := make(chan int64, 10)
	sub, err := bus.Subscribe(f.ctx(), b, f.topic, func(_ context.Context, e *Noted) error {
		got <- e.Number
		return nil
	}, bus.SubscriptionOptions{})
	require.NoError(f, err)
	f.publish(b, &Noted{Number: 2}, bus.PublishOptions{})
	require.EqualValues(f, 2, next(f, "the event published after", got))
	require.NoError(f, sub.Close(f.ctx()))
	none(f, "the event published before", got)
}

func durableQueueKeeps(f *fixture) {
	first := f.node()
	got := f.handle(first, "reader", bus.SubscriptionOptions{})
	f.run(first)
	require.NoError(f, first.Close(f.ctx()))

	publisher := f.node()
	for i := range int64(10) {
		f.publish(publisher, &Noted{Number: i}, bus.PublishOptions{})
	}
	none(f, "an event at the instance that has gone", got)

	second := f.node()
	got = f.handle(second, "reader", bus.SubscriptionOptions{PrefetchCount: 1})
	f.run(second)
	for i := range int64(10) {
		require.Equal(f, i, number(f, next(f, "what came meanwhile", got)), "in the order of publishing")
	}
}

func topicsAreListed(f *fixture) {
	first := f.node()
	f.handle(first, "reader", bus.SubscriptionOptions{})
	f.run(first)
	topic := func(b *bus.Bus) bus.TopicInfo {
		all, err := b.Topics(f.ctx())
		require.NoError(f, err)
		for _, t := range all {
			if t.Name == f.topic {
				return t
			}
		}
		return bus.TopicInfo{}
	}
	require.Eventually(f, func() bool { return topic(first).ConsumerCount == 1 }, patience, 10*time.Millisecond)
	require.NoError(f, first.Close(f.ctx()))
	b := f.node()
	for range 3 {
		f.publish(b, &Noted{}, bus.PublishOptions{})
	}
	require.Eventually(f, func() bool {
		t := topic(b)
		return t.MessageCount == 3 && t.ConsumerCount == 0 && t.Exchange != ""
	}, patience, 10*time.Millisecond, "three waiting, nobody reading")
}

func higherPriorityFirst(f *fixture) {
	first := f.node()
	f.handle(first, "reader", bus.SubscriptionOptions{})
	f.run(first)
	require.NoError(f, first.Close(f.ctx()))
	b := f.node()
	for _, priority := range []uint8{0, 5, 9, 5, 0} {
		f.publish(b, &Noted{Number: int64(priority)}, bus.PublishOptions{Priority: priority})
	}
	got := f.handle(b, "reader", bus.SubscriptionOptions{PrefetchCount: 1})
	f.run(b)
	for _, want := range []int64{9, 5, 5, 0, 0} {
		require.Equal(f, want, number(f, next(f, "an event", got)))
	}
}
