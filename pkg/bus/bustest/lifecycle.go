package bustest

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

func lifecycle() []testCase {
	return []testCase{
		{
			name: "HandlerAddedWhileRunning",
			why:  "services come up in an order of their own; one that is late must not be deaf",
			run:  handlerAddedWhileRunning,
		},
		{
			name: "DuplicateHandlerIsRefused",
			why:  "two handlers on one queue would each see half of the events, and nobody would notice",
			run:  duplicateIsRefused,
		},
		{
			name: "CloseLetsHandlersFinish",
			why:  "a deploy must not cut a payment in half",
			run:  closeLetsFinish,
		},
		{
			name: "CloseGivesBackWhatIsUnfinished",
			why:  "a handler cut short at shutdown is neither a failure nor done: another instance takes the event",
			run:  closeGivesBack,
		},
		{
			name: "CloseGivesBackWhatIsPrefetched",
			why:  "events that were only waiting in a closing node must go to the next at once, in their order",
			run:  closeGivesBackPrefetched,
		},
		{
			name: "CloseEndsWithABacklog",
			why:  "a node that is told to stop must stop, also when events come faster than it can give them back",
			run:  closeEndsWithBacklog,
		},
		{
			name: "ClosedBusSaysSo",
			why:  "a caller that is late must get an error that it can tell from others",
			run:  closedSaysSo,
		},
		{
			name: "RunEndsWithItsContext",
			why:  "a process that is told to stop must stop",
			run:  runEndsWithContext,
		},
		{
			name: "OneNodeClosesTheOthersGoOn",
			why:  "nodes share a broker, not a fate",
			run:  othersGoOn,
		},
	}
}

func handlerAddedWhileRunning(f *fixture) {
	b := f.node()
	f.run(b)
	got := f.handle(b, "late", bus.SubscriptionOptions{})
	f.publish(b, &Noted{Number: 1}, bus.PublishOptions{})
	require.EqualValues(f, 1, number(f, next(f, "the event", got)))
	more := f.handle(b, "later", bus.SubscriptionOptions{})
	f.publish(b, &Noted{Number: 2}, bus.PublishOptions{})
	require.EqualValues(f, 2, number(f, next(f, "the event", got)))
	require.EqualValues(f, 2, number(f, next(f, "the event", more)))
}

func duplicateIsRefused(f *fixture) {
	b := f.node()
	ignore := func(context.Context, *bus.Received) error { return nil }
	require.NoError(f, b.HandleRaw(f.topic, "one", ignore, bus.SubscriptionOptions{}))
	require.ErrorIs(f, b.HandleRaw(f.topic, "one", ignore, bus.SubscriptionOptions{}), bus.ErrDuplicateHandler)
	require.ErrorIs(f, b.HandleRaw(f.topic, "one", ignore, bus.SubscriptionOptions{Group: "other"}), bus.ErrDuplicateHandler)
	require.ErrorIs(f, b.HandleRaw(f.topic, "two", ignore, bus.SubscriptionOptions{Group: "bannou.one"}), bus.ErrDuplicateHandler)
	require.NoError(f, b.HandleRaw(f.topic, "two", ignore, bus.SubscriptionOptions{}))
	require.NoError(f, b.HandleRaw(f.topic+".x", "one", ignore, bus.SubscriptionOptions{}))
	f.run(b)
	require.ErrorIs(f, b.HandleRaw(f.topic, "one", ignore, bus.SubscriptionOptions{}), bus.ErrDuplicateHandler)
}

func closeLetsFinish(f *fixture) {
	b := f.node()
	second := f.topic + ".second"
	other := f.node()
	got := make(chan int64, 1)
	_, err := bus.Subscribe(f.ctx(), other, second, func(_ context.Context, e *Noted) error {
		got <- e.Number
		return nil
	}, bus.SubscriptionOptions{})
	require.NoError(f, err)

	entered, leave := make(chan struct{}, 10), make(chan struct{})
	require.NoError(f, bus.Handle(b, f.topic, "payment", func(ctx context.Context, e *Noted) error {
		entered <- struct{}{}
		<-leave
		_, err := b.Publish(ctx, second, &Noted{Number: e.Number})
		return err
	}, bus.SubscriptionOptions{}))
	f.run(b)
	f.publish(other, &Noted{Number: 8}, bus.PublishOptions{})
	next(f, "the handler", entered)
	closed := make(chan error, 1)
	go func() { closed <- b.Close(f.ctx()) }()
	require.Eventually(f, func() bool { return b.Ready(f.Context()) != nil }, patience, time.Millisecond, "it is closing")
	none(f, "the end of Close before the handler's", closed)
	close(leave)
	require.NoError(f, next(f, "the end of Close", closed))
	require.EqualValues(f, 8, next(f, "what the handler published while closing", got))

	again := f.node()
	repeated := f.handle(again, "payment", bus.SubscriptionOptions{})
	f.run(again)
	f.publish(again, &Noted{Number: 9}, bus.PublishOptions{})
	require.EqualValues(f, 9, number(f, next(f, "the next event; the finished one is not repeated", repeated)))
}

func closeGivesBack(f *fixture) {
	b := f.node()
	letters := f.deadLetters()
	entered := make(chan struct{}, 10)
	require.NoError(f, bus.Handle(b, f.topic, "worker", func(ctx context.Context, _ *Noted) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}, bus.SubscriptionOptions{}))
	f.run(b)
	id := f.publish(b, &Noted{}, bus.PublishOptions{})
	next(f, "the handler", entered)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	start := time.Now()
	require.ErrorIs(f, b.Close(ctx), context.DeadlineExceeded)
	require.Less(f, time.Since(start), patience/2)

	other := f.node()
	got := f.handle(other, "worker", bus.SubscriptionOptions{})
	f.run(other)
	require.Equal(f, id, next(f, "the event at another instance", got).MessageID)
	none(f, "a dead letter", letters)
	none(f, "a second call", entered)
}

func closeGivesBackPrefetched(f *fixture) {
	b := f.node()
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	require.NoError(f, bus.Handle(b, f.topic, "worker", func(context.Context, *Noted) error {
		entered <- struct{}{}
		<-leave
		return nil
	}, bus.SubscriptionOptions{PrefetchCount: 10}))
	f.run(b)
	for i := range int64(5) {
		f.publish(b, &Noted{Number: i}, bus.PublishOptions{PartitionKey: "one"})
	}
	next(f, "the first of five with one key", entered)
	closed := make(chan error, 1)
	go func() { closed <- b.Close(f.ctx()) }()
	require.Eventually(f, func() bool { return b.Ready(f.Context()) != nil }, patience, time.Millisecond, "it is closing")
	d, queue := f.setup.Node(f), f.topic+".bannou.worker"
	require.Eventually(f, func() bool { q, there, err := f.queue(d, queue); return err == nil && there && q.Consumers == 0 }, patience, time.Millisecond)

	other := f.node()
	got := f.handle(other, "worker", bus.SubscriptionOptions{PrefetchCount: 1})
	f.run(other)
	for i := int64(1); i < 5; i++ {
		require.Equal(f, i, number(f, next(f, "the others, while the first is still handled", got)))
	}
	close(leave)
	require.NoError(f, next(f, "the end of Close", closed))
	none(f, "a call of the closed node's handler", entered)
}

func closeEndsWithBacklog(f *fixture) {
	const events = 1000
	q := f.durable("bannou.worker", 100)
	require.NoError(f, f.consume(q, func(bus.Delivery) {}).Close(f.ctx()))
	publisher := f.node()
	var publishing sync.WaitGroup
	for worker := range int64(50) {
		publishing.Go(func() {
			for i := worker; i < events; i += 50 {
				_, err := publisher.PublishWith(f.ctx(), f.topic, &Noted{Number: i}, bus.PublishOptions{})
				assert.NoError(f, err)
			}
		})
	}
	publishing.Wait()

	b := f.node()
	tenth := make(chan struct{})
	var calls atomic.Int64
	require.NoError(f, b.HandleRaw(f.topic, "worker", func(context.Context, *bus.Received) error {
		if calls.Add(1) == 10 {
			close(tenth)
		}
		return nil
	}, bus.SubscriptionOptions{PrefetchCount: 100}))
	f.run(b)
	next(f, "the tenth call", tenth)
	require.NoError(f, b.Close(f.ctx()))

	left := make(chan bus.Delivery, events)
	f.consume(q, func(d bus.Delivery) {
		left <- d
		_ = d.Ack()
	})
	for range events - calls.Load() {
		d := next(f, "an event that the closed node did not handle", left)
		require.LessOrEqual(f, d.Attempt(), 2, "it was given back once")
	}
}

func closedSaysSo(f *fixture) {
	b := f.node()
	require.NoError(f, b.Ready(f.ctx()))
	sub, _ := f.subscribe(b, f.topic, bus.SubscriptionOptions{})
	f.run(b)
	require.Error(f, b.Run(f.ctx()), "it runs once")
	require.NoError(f, b.Close(f.ctx()))
	require.NoError(f, b.Close(f.ctx()), "closing again does nothing")
	next(f, "the end of its subscription", sub.Done())
	_, err := b.Publish(f.ctx(), f.topic, &Noted{})
	require.ErrorIs(f, err, bus.ErrClosed)
	ignore := func(context.Context, *bus.Received) error { return nil }
	require.ErrorIs(f, b.HandleRaw(f.topic, "h", ignore, bus.SubscriptionOptions{}), bus.ErrClosed)
	_, err = b.SubscribeRaw(f.ctx(), f.topic, ignore, bus.SubscriptionOptions{})
	require.ErrorIs(f, err, bus.ErrClosed)
	require.ErrorIs(f, b.Run(f.ctx()), bus.ErrClosed)
	require.ErrorIs(f, b.Ready(f.ctx()), bus.ErrClosed)

	unused := f.node()
	f.handle(unused, "never-run", bus.SubscriptionOptions{})
	require.NoError(f, unused.Close(f.ctx()), "a bus that never ran closes too")
}

func runEndsWithContext(f *fixture) {
	b := f.node()
	f.handle(b, "reader", bus.SubscriptionOptions{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	next(f, "that it runs", b.Running())
	cancel()
	require.NoError(f, next(f, "the end of Run", ended))
	_, err := b.Publish(f.ctx(), f.topic, &Noted{})
	require.ErrorIs(f, err, bus.ErrClosed)
}

func othersGoOn(f *fixture) {
	one, two := f.node(), f.node()
	f.handle(one, "reader", bus.SubscriptionOptions{})
	got := f.handle(two, "reader", bus.SubscriptionOptions{})
	f.run(one)
	f.run(two)
	require.NoError(f, one.Close(f.ctx()))
	for i := range int64(10) {
		f.publish(two, &Noted{Number: i}, bus.PublishOptions{})
	}
	seen := map[int64]bool{}
	for range 10 {
		seen[number(f, next(f, "an event", got))] = true
	}
	require.Len(f, seen, 10)
}
