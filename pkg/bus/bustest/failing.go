package bustest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

var errBroken = errors.New("the database is on fire")

func failing() []testCase {
	return []testCase{
		{
			name: "FailingHandlerIsRetriedAloneAndDeadLettered",
			why:  "one service's bug must not repeat an event for the others, and must leave a record to replay from",
			run:  failingHandlerAlone,
		},
		{
			name: "RetryThatSucceedsEndsIt",
			why:  "most failures are short: an event must survive them without anybody's attention",
			run:  retryThatSucceeds,
		},
		{
			name: "DelayedEventBlocksNobody",
			why:  "with one place in work, an event that waits for its redelivery must not keep that place",
			run:  delayedEventBlocksNobody,
		},
		{
			name: "PostponedIsNotCounted",
			why:  "a receiver that asks for a pause is not broken: its events must wait as asked, and not end as dead letters",
			run:  postponedIsNotCounted,
		},
		{
			name: "FailuresAreTold",
			why:  "a dead letter that nobody hears of is found on Monday",
			run:  failuresAreTold,
		},
		{
			name: "PermanentIsDeadLetteredAtOnce",
			why:  "retrying what cannot succeed wastes the time of what can",
			run:  permanentAtOnce,
		},
		{
			name: "LargestHeadersAreDeadLettered",
			why:  "a letter is larger than its event: what fitted as an event must fit as a letter, or it is handled for ever",
			run:  largestHeadersAreDeadLettered,
		},
		{
			name: "UndecodableIsDeadLetteredAtOnce",
			why:  "a malformed event must neither loop nor vanish: it is evidence",
			run:  undecodableAtOnce,
		},
		{
			name: "PanicIsAFailure",
			why:  "one nil pointer must not take the node down, nor lose the event",
			run:  panicIsAFailure,
		},
		{
			name: "TimeoutIsAFailure",
			why:  "a handler that hangs must give its place back",
			run:  timeoutIsAFailure,
		},
		{
			name: "NoDeadLetterDrops",
			why:  "a subscription that asks for it must not fill the store with what nobody will read",
			run:  noDeadLetterDrops,
		},
		{
			name: "AutoAckIsAtMostOnce",
			why:  "a live display wants the latest, not yesterday's again; its failures are still recorded",
			run:  autoAckIsAtMostOnce,
		},
		{
			name: "DynamicSubscriptionFailsTheSame",
			why:  "callbacks over HTTP are dynamic subscriptions: a 500 must be retried and recorded like any failure",
			run:  dynamicFailsTheSame,
		},
		{
			name: "DeadLetterStoreKeeps",
			why:  "dead letters must be there on Monday though nobody listened on Sunday",
			run:  deadLetterStoreKeeps,
			need: func(x Features) bool { return x.DeadLetterStore != "" },
		},
		{
			name: "ExpiredIsDeadLettered",
			why:  "an offer that nobody took in time must be seen to have lapsed",
			run:  expiredIsDeadLettered,
			need: func(x Features) bool { return x.Expiration },
		},
	}
}

func failingHandlerAlone(f *fixture) {
	b := f.node(func(c *bus.Config) { c.RetryMaxAttempts = 2; c.ImmediateRetries = 2 })
	letters := f.deadLetters()
	well := f.handle(b, "well", bus.SubscriptionOptions{})
	attempts := make(chan int, 100)
	require.NoError(f, b.HandleRaw(f.topic, "broken", func(_ context.Context, r *bus.Received) error {
		if number(f, r) == 1 {
			attempts <- r.Attempt
			return errBroken
		}
		return nil
	}, bus.SubscriptionOptions{}))
	f.run(b)

	start := time.Now()
	sent := &Noted{Number: 1, Text: "evidence"}
	id := f.publish(b, sent, bus.PublishOptions{CorrelationID: "talk", Priority: 3, Headers: map[string]string{"tenant": "blue"}})
	letter := next(f, "the dead letter", letters)
	for _, want := range []int{1, 1, 1, 2, 3} {
		require.Equal(f, want, next(f, "an attempt", attempts))
	}
	none(f, "a further attempt", attempts)
	require.GreaterOrEqual(f, time.Since(start), 2*retryDelay, "two redeliveries, each after the delay")

	require.Equal(f, bus.DeadLetterKey+f.topic, letter.RoutingKey)
	require.Equal(f, id, letter.ID)
	require.Equal(f, "NotedEvent", letter.Type)
	require.Equal(f, "application/json", letter.ContentType)
	require.Equal(f, "talk", letter.CorrelationID)
	require.EqualValues(f, 3, letter.Priority)
	var body Noted
	decode(f, letter.Body, &body)
	require.Equal(f, *sent, body)
	require.Equal(f, "blue", letter.Headers["tenant"])
	require.Equal(f, "bannou", letter.Headers[bus.HeaderSourceService])
	require.Equal(f, f.topic, letter.Headers[bus.HeaderOriginalTopic])
	exchange := f.setup.Config.Exchange
	if exchange == "" {
		exchange = "bannou"
	}
	require.Equal(f, exchange, letter.Headers[bus.HeaderOriginalExchange])
	require.Equal(f, f.topic+".bannou.broken", letter.Headers[bus.HeaderOriginalQueue])
	require.Equal(f, "2", letter.Headers[bus.HeaderRetryCount])
	require.Equal(f, bus.DiscardMaxRetries, letter.Headers[bus.HeaderDiscardReason])
	require.Contains(f, letter.Headers[bus.HeaderException], errBroken.Error())
	queued, err := time.Parse(time.RFC3339Nano, letter.Headers[bus.HeaderQueuedAt])
	require.NoError(f, err)
	discarded, err := time.Parse(time.RFC3339Nano, letter.Headers[bus.HeaderDiscardedAt])
	require.NoError(f, err)
	require.WithinDuration(f, start, queued, patience)
	require.False(f, discarded.Before(queued), "%s before %s", discarded, queued)

	require.EqualValues(f, 1, number(f, next(f, "the other handler", well)))
	none(f, "a second time at the other handler", well)
}

func retryThatSucceeds(f *fixture) {
	b := f.node()
	letters := f.deadLetters()
	done := make(chan int, 1)
	var calls atomic.Int64
	require.NoError(f, b.HandleRaw(f.topic, "shaky", func(_ context.Context, r *bus.Received) error {
		if calls.Add(1) < 4 { // called twice on the first delivery, then once each
			return errBroken
		}
		done <- r.Attempt
		return nil
	}, bus.SubscriptionOptions{}))
	f.run(b)
	f.publish(b, &Noted{}, bus.PublishOptions{})
	require.Equal(f, 3, next(f, "success", done))
	require.NoError(f, b.Close(f.ctx()))
	none(f, "a dead letter", letters)
}

func delayedEventBlocksNobody(f *fixture) {
	b := f.node(func(c *bus.Config) { c.RetryDelay = time.Minute; c.ImmediateRetries = -1 })
	failed := make(chan struct{}, 10)
	got := make(chan int64, 10)
	require.NoError(f, bus.Handle(b, f.topic, "narrow", func(_ context.Context, e *Noted) error {
		if e.Number == 1 {
			failed <- struct{}{}
			return errBroken
		}
		got <- e.Number
		return nil
	}, bus.SubscriptionOptions{PrefetchCount: 1}))
	f.run(b)
	f.publish(b, &Noted{Number: 1}, bus.PublishOptions{PartitionKey: "k"})
	f.publish(b, &Noted{Number: 2}, bus.PublishOptions{PartitionKey: "k"})
	next(f, "the failure", failed)
	require.EqualValues(f, 2, next(f, "its successor", got))
	none(f, "a redelivery before its time", failed)
}

func postponedIsNotCounted(f *fixture) {
	const pause = 80 * time.Millisecond
	b := f.node(func(c *bus.Config) { c.RetryMaxAttempts = 1; c.ImmediateRetries = 1 })
	letters := f.deadLetters()
	type call struct {
		number int64
		at     time.Time
	}
	calls := make(chan call, 100)
	seen := 0
	require.NoError(f, b.HandleRaw(f.topic, "limited", func(_ context.Context, r *bus.Received) error {
		calls <- call{number(f, r), time.Now()}
		if number(f, r) == 2 {
			return nil
		}
		switch seen++; {
		case seen <= 4:
			return bus.RetryAfter(errBroken, pause)
		case seen == 5: // the quick attempt is still to come
			return errBroken
		default:
			return nil
		}
	}, bus.SubscriptionOptions{PrefetchCount: 1}))
	f.run(b)
	f.publish(b, &Noted{Number: 1}, bus.PublishOptions{Headers: map[string]string{"tenant": "blue"}})
	last := next(f, "the first call", calls)
	f.publish(b, &Noted{Number: 2}, bus.PublishOptions{})
	require.EqualValues(f, 2, next(f, "another event, while the first waits", calls).number)
	for range 4 {
		again := next(f, "a call after the pause", calls)
		require.EqualValues(f, 1, again.number)
		require.GreaterOrEqual(f, again.at.Sub(last.at), pause)
		last = again
	}
	quick := next(f, "the call at once", calls)
	require.Less(f, quick.at.Sub(last.at), pause)
	require.NoError(f, b.Close(f.ctx()))
	none(f, "a further call", calls)
	none(f, "a dead letter", letters)
}

func failuresAreTold(f *fixture) {
	told := make(chan bus.Failure, 10)
	b := f.node(func(c *bus.Config) {
		c.RetryMaxAttempts, c.ImmediateRetries = -1, -1
		c.OnFailure = func(_ context.Context, failure bus.Failure) {
			told <- failure
			panic("it fails itself")
		}
	})
	letters := f.deadLetters()
	require.NoError(f, b.HandleRaw(f.topic, "clumsy", func(_ context.Context, r *bus.Received) error {
		if number(f, r) == 2 {
			panic("index out of range")
		}
		return errBroken
	}, bus.SubscriptionOptions{Service: "shop"}))
	require.NoError(f, b.HandleRaw(f.topic, "careless", func(_ context.Context, r *bus.Received) error {
		if number(f, r) == 3 {
			return errBroken
		}
		return nil
	}, bus.SubscriptionOptions{NoDeadLetter: true}))
	f.run(b)

	tell := func(want bus.Failure, text string) {
		f.Helper()
		got := next(f, "a failure", told)
		require.ErrorContains(f, got.Err, text)
		got.Err = nil
		require.Equal(f, want, got)
	}
	id := f.publish(b, &Noted{Number: 1}, bus.PublishOptions{CorrelationID: "talk"})
	lettered := bus.Failure{Kind: bus.FailureDeadLettered, Service: "shop", Queue: f.topic + ".bannou.clumsy", Topic: f.topic,
		MessageID: id, CorrelationID: "talk", Reason: bus.DiscardMaxRetries}
	tell(lettered, errBroken.Error())
	next(f, "the dead letter", letters)

	lettered.MessageID = f.publish(b, &Noted{Number: 2}, bus.PublishOptions{CorrelationID: "talk"})
	panicked := lettered
	panicked.Kind, panicked.Reason = bus.FailurePanicked, "panicked"
	tell(panicked, "index out of range")
	tell(lettered, "index out of range")
	next(f, "the dead letter", letters)

	id = f.publish(b, &Noted{Number: 3}, bus.PublishOptions{})
	kinds := map[bus.FailureKind]string{}
	for range 2 {
		failure := next(f, "a failure", told)
		require.Equal(f, id, failure.MessageID)
		kinds[failure.Kind] = failure.Service
	}
	require.Equal(f, map[bus.FailureKind]string{bus.FailureDeadLettered: "shop", bus.FailureDropped: "bannou"}, kinds)
	require.NoError(f, b.Close(f.ctx()))
	none(f, "a further failure: one dead letter is told once", told)
}

func permanentAtOnce(f *fixture) {
	b := f.node()
	letters := f.deadLetters()
	var calls atomic.Int64
	require.NoError(f, bus.Handle(b, f.topic, "strict", func(context.Context, *Noted) error {
		calls.Add(1)
		return bus.Permanent(errBroken)
	}, bus.SubscriptionOptions{}))
	f.run(b)
	f.publish(b, &Noted{}, bus.PublishOptions{})
	letter := next(f, "the dead letter", letters)
	require.EqualValues(f, 1, calls.Load(), "calls of the handler")
	require.Equal(f, bus.DiscardPermanent, letter.Headers[bus.HeaderDiscardReason])
	require.Equal(f, "0", letter.Headers[bus.HeaderRetryCount])
}

func largestHeadersAreDeadLettered(f *fixture) {
	b := f.node()
	letters := f.deadLetters()
	var calls atomic.Int64
	require.NoError(f, b.HandleRaw(f.topic, "strict", func(context.Context, *bus.Received) error {
		calls.Add(1)
		return bus.Permanent(errors.New(strings.Repeat("e", 5000)))
	}, bus.SubscriptionOptions{}))
	f.run(b)
	headers := make(map[string]string)
	for i := range 8 { // 64 KiB together with what the bus adds, or a little less
		headers[fmt.Sprintf("header-%d", i)] = strings.Repeat("x", 8<<10-48)
	}
	f.publish(b, &Noted{}, bus.PublishOptions{Headers: headers, Expiration: time.Hour})
	letter := next(f, "the dead letter", letters)
	require.EqualValues(f, 1, calls.Load(), "calls of the handler")
	require.Equal(f, f.topic, letter.Headers[bus.HeaderOriginalTopic])
	for name, value := range headers {
		require.Equal(f, value, letter.Headers[name])
	}
	require.NotContains(f, letter.Headers, bus.HeaderOmittedHeaders)
}

func undecodableAtOnce(f *fixture) {
	b := f.node()
	letters := f.deadLetters()
	got := make(chan int64, 10)
	require.NoError(f, bus.Handle(b, f.topic, "typed", func(_ context.Context, e *Noted) error {
		got <- e.Number
		return nil
	}, bus.SubscriptionOptions{}))
	f.run(b)
	for _, body := range []string{`{"number":"many","eventId":"x"}`, `not json at all`, ``} {
		_, err := b.PublishRaw(f.ctx(), f.topic, []byte(body), bus.PublishOptions{ContentType: "text/plain"})
		require.NoError(f, err)
		letter := next(f, "the dead letter", letters)
		require.Equal(f, bus.DiscardUndecodable, letter.Headers[bus.HeaderDiscardReason])
		require.Equal(f, "0", letter.Headers[bus.HeaderRetryCount])
		require.Equal(f, body, string(letter.Body))
	}
	none(f, "a handler's call", got)
	f.publish(b, &Noted{Number: 5}, bus.PublishOptions{})
	require.EqualValues(f, 5, next(f, "a good event after them", got))
}

func panicIsAFailure(f *fixture) {
	b := f.node(func(c *bus.Config) { c.RetryMaxAttempts = 1; c.ImmediateRetries = -1 })
	letters := f.deadLetters()
	attempts := make(chan int, 10)
	require.NoError(f, b.HandleRaw(f.topic, "clumsy", func(_ context.Context, r *bus.Received) error {
		attempts <- r.Attempt
		panic("index out of range")
	}, bus.SubscriptionOptions{}))
	well := f.handle(b, "well", bus.SubscriptionOptions{})
	f.run(b)
	f.publish(b, &Noted{}, bus.PublishOptions{})
	letter := next(f, "the dead letter", letters)
	require.Equal(f, 1, next(f, "an attempt", attempts))
	require.Equal(f, 2, next(f, "an attempt", attempts))
	require.Equal(f, bus.DiscardMaxRetries, letter.Headers[bus.HeaderDiscardReason])
	require.Contains(f, letter.Headers[bus.HeaderException], "index out of range")
	next(f, "the other handler", well)
}

func timeoutIsAFailure(f *fixture) {
	b := f.node(func(c *bus.Config) { c.RetryMaxAttempts = -1; c.ImmediateRetries = -1 })
	letters := f.deadLetters()
	require.NoError(f, bus.Handle(b, f.topic, "stuck", func(ctx context.Context, _ *Noted) error {
		<-ctx.Done()
		return ctx.Err()
	}, bus.SubscriptionOptions{Timeout: 10 * time.Millisecond}))
	f.run(b)
	f.publish(b, &Noted{}, bus.PublishOptions{})
	letter := next(f, "the dead letter", letters)
	require.Contains(f, letter.Headers[bus.HeaderException], context.DeadlineExceeded.Error())
}

func noDeadLetterDrops(f *fixture) {
	b := f.node()
	letters := f.deadLetters()
	calls := make(chan int64, 10)
	require.NoError(f, bus.Handle(b, f.topic, "careless", func(_ context.Context, e *Noted) error {
		calls <- e.Number
		return errBroken
	}, bus.SubscriptionOptions{NoDeadLetter: true, Retry: &bus.RetryPolicy{Immediate: -1, MaxAttempts: 1, Delay: time.Millisecond}}))
	f.run(b)
	f.publish(b, &Noted{Number: 1}, bus.PublishOptions{})
	require.EqualValues(f, 1, next(f, "the first call", calls))
	require.EqualValues(f, 1, next(f, "the redelivery", calls))
	require.NoError(f, b.Close(f.ctx()))
	none(f, "a dead letter", letters)

	again := f.node()
	got := f.handle(again, "careless", bus.SubscriptionOptions{})
	f.run(again)
	f.publish(again, &Noted{Number: 2}, bus.PublishOptions{})
	require.EqualValues(f, 2, number(f, next(f, "the next event; the dropped one is gone from its queue", got)))
}

func autoAckIsAtMostOnce(f *fixture) {
	b := f.node(func(c *bus.Config) { c.ImmediateRetries = 2 })
	letters := f.deadLetters()
	var mu sync.Mutex
	attempts := map[int64][]int{}
	handled := make(chan int64, 100)
	require.NoError(f, b.HandleRaw(f.topic, "display", func(_ context.Context, r *bus.Received) error {
		n := number(f, r)
		mu.Lock()
		attempts[n] = append(attempts[n], r.Attempt)
		mu.Unlock()
		if n == 0 {
			return errBroken
		}
		handled <- n
		return nil
	}, bus.SubscriptionOptions{AutoAck: true, PrefetchCount: 3}))
	f.run(b)
	for i := range int64(30) {
		f.publish(b, &Noted{Number: i}, bus.PublishOptions{})
	}
	for range 29 {
		next(f, "an event", handled)
	}
	letter := next(f, "the dead letter", letters)
	require.Equal(f, bus.DiscardMaxRetries, letter.Headers[bus.HeaderDiscardReason])
	mu.Lock()
	defer mu.Unlock()
	require.Equal(f, []int{1, 1, 1}, attempts[0], "retried in the process, never redelivered")
}

func dynamicFailsTheSame(f *fixture) {
	b := f.node(func(c *bus.Config) { c.RetryMaxAttempts = 1; c.ImmediateRetries = -1 })
	letters := f.deadLetters()
	attempts := make(chan int, 10)
	sub, err := b.SubscribeRaw(f.ctx(), f.topic, func(_ context.Context, r *bus.Received) error {
		attempts <- r.Attempt
		return errBroken
	}, bus.SubscriptionOptions{})
	require.NoError(f, err)
	f.publish(b, &Noted{}, bus.PublishOptions{})
	require.Equal(f, 1, next(f, "the delivery", attempts))
	require.Equal(f, 2, next(f, "the redelivery", attempts))
	letter := next(f, "the dead letter", letters)
	require.Equal(f, sub.Queue(), letter.Headers[bus.HeaderOriginalQueue])
}

func deadLetterStoreKeeps(f *fixture) {
	d := f.setup.Node(f)
	count := func() int64 {
		q, _, err := f.queue(d, f.features.DeadLetterStore)
		if err != nil {
			return -1
		}
		return q.Messages
	}
	before := count()
	require.GreaterOrEqual(f, before, int64(0), "the store is counted")
	b := f.node()
	require.NoError(f, bus.Handle(b, f.topic, "strict", func(context.Context, *Noted) error {
		return bus.Permanent(errBroken)
	}, bus.SubscriptionOptions{}))
	f.run(b)
	f.publish(b, &Noted{}, bus.PublishOptions{})
	require.Eventually(f, func() bool { return count() == before+1 }, patience, 10*time.Millisecond, "one more in the store")
}

func expiredIsDeadLettered(f *fixture) {
	first := f.node()
	f.handle(first, "reader", bus.SubscriptionOptions{})
	f.run(first)
	require.NoError(f, first.Close(f.ctx()))

	letters := f.deadLetters()
	b := f.node()
	id := f.publish(b, &Noted{Number: 1}, bus.PublishOptions{Expiration: 20 * time.Millisecond})
	kept := f.publish(b, &Noted{Number: 2}, bus.PublishOptions{Expiration: time.Hour})
	letter := next(f, "the dead letter", letters)
	require.Equal(f, id, letter.ID)
	require.Equal(f, bus.DiscardExpired, letter.Headers[bus.HeaderDiscardReason])
	require.Equal(f, f.topic, letter.Headers[bus.HeaderOriginalTopic])
	require.Equal(f, f.topic+".bannou.reader", letter.Headers[bus.HeaderOriginalQueue])
	require.NotEmpty(f, letter.Headers[bus.HeaderDiscardedAt])

	got := f.handle(b, "reader", bus.SubscriptionOptions{})
	f.run(b)
	require.Equal(f, kept, next(f, "what has not expired", got).MessageID)
}
