package bustest

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

func decode(f *fixture, body []byte, into any) {
	f.Helper()
	require.NoError(f, json.Unmarshal(body, into))
}

func publishing() []testCase {
	return []testCase{
		{
			name: "ManyUnderWayKeepTheirOrder",
			why:  "an import of a million events cannot wait for each, nor may it shuffle them",
			run:  manyUnderWay,
		},
		{
			name: "EventArrivesWithItsProperties",
			why:  "other programs read the properties, not the body: each must be as the contract names it, and numbers exact",
			run:  eventArrivesWithItsProperties,
		},
		{
			name: "OwnIDIsKept",
			why:  "an event that is published again after a doubt must keep its id, or nobody can tell that it is the same",
			run:  ownIDIsKept,
		},
		{
			name: "RawJSONIsStamped",
			why:  "programs in other languages publish bare payloads through the messaging service; subscribers rely on eventId",
			run:  rawJSONIsStamped,
		},
		{
			name: "RawBytesAreUntouched",
			why:  "a body that is not JSON is the publisher's business, to the byte",
			run:  rawBytesAreUntouched,
		},
		{
			name: "HandlerPublishesInContext",
			why:  "without correlation, cause and trace carried on, nobody can follow a player's action through five services",
			run:  handlerPublishesInContext,
		},
		{
			name: "MandatoryIsRefusedWhereNobodyListens",
			why:  "a command that reaches nobody must be an error, not a silence",
			run:  mandatoryIsRefused,
		},
		{
			name: "EndedContextSendsNothing",
			why:  "a request that has been given up must not have effects, and must not hang",
			run:  endedContextSendsNothing,
		},
		{
			name: "InvalidIsRefused",
			why:  "bad input must get a clear error here, not close a channel that all publishers share",
			run:  invalidIsRefused,
		},
		{
			name: "LargeBody",
			why:  "a world snapshot is a megabyte; frames are not",
			run:  largeBody,
		},
		{
			name: "ManyPublishersLoseNothing",
			why:  "confirms are pipelined: one publisher's answer must never be taken for another's",
			run:  manyPublishersLoseNothing,
		},
	}
}

func eventArrivesWithItsProperties(f *fixture) {
	b := f.node()
	got := f.handle(b, "reader", bus.SubscriptionOptions{})
	f.run(b)

	sent := &Noted{Number: math.MaxInt64, Text: "größer <b>&amp;"}
	before := time.Now()
	id := f.publish(b, sent, bus.PublishOptions{
		Priority: 7, CorrelationID: "conversation-1", PartitionKey: "key-1", Headers: map[string]string{"tenant": "blue"},
	})
	r := next(f, "the event", got)
	require.Equal(f, f.topic, r.Topic)
	require.NotEmpty(f, id)
	require.Equal(f, id, r.MessageID)
	require.Equal(f, id, sent.EventID, "Publish stamps the caller's event")
	require.Equal(f, "NotedEvent", r.Type)
	require.Equal(f, "application/json", r.ContentType)
	require.Equal(f, "conversation-1", r.CorrelationID)
	require.WithinDuration(f, before, r.Timestamp, patience)
	require.Equal(f, 1, r.Attempt)
	require.Equal(f, "blue", r.Headers["tenant"])
	require.Equal(f, "key-1", r.Headers[bus.HeaderPartitionKey])
	require.Equal(f, "bannou", r.Headers[bus.HeaderSourceService])
	var event Noted
	decode(f, r.Body, &event)
	require.Equal(f, *sent, event)
}

func ownIDIsKept(f *fixture) {
	b := f.node()
	got := f.handle(b, "reader", bus.SubscriptionOptions{})
	f.run(b)
	require.Equal(f, "e-17", f.publish(b, &Noted{EventID: "e-17"}, bus.PublishOptions{}))
	require.Equal(f, "e-17", next(f, "the event", got).MessageID)
	require.Equal(f, "e-18", f.publish(b, &Noted{}, bus.PublishOptions{MessageID: "e-18"}))
	require.Equal(f, "e-18", next(f, "the event", got).MessageID)
	_, err := b.PublishWith(f.ctx(), f.topic, &Noted{EventID: "e-19"}, bus.PublishOptions{MessageID: "e-20"})
	require.ErrorIs(f, err, bus.ErrInvalid)
}

func rawJSONIsStamped(f *fixture) {
	b := f.node()
	got := f.handle(b, "reader", bus.SubscriptionOptions{})
	f.run(b)

	id, err := b.PublishRaw(f.ctx(), f.topic, []byte(`  {"price": 12345678901234567890.10}`), bus.PublishOptions{})
	require.NoError(f, err)
	r := next(f, "the event", got)
	require.Equal(f, id, r.MessageID)
	var body map[string]any
	decode(f, r.Body, &body)
	require.Equal(f, id, body["eventId"])
	require.NotEmpty(f, body["timestamp"])
	require.Contains(f, string(r.Body), `"price": 12345678901234567890.10`, "what is not ours stays to the byte")

	own := []byte(`{"eventId":"mine","timestamp":"2024-05-06T07:08:09Z"}`)
	id, err = b.PublishRaw(f.ctx(), f.topic, own, bus.PublishOptions{})
	require.NoError(f, err)
	r = next(f, "the event", got)
	require.Equal(f, "mine", id)
	require.Equal(f, string(own), string(r.Body))
	require.True(f, r.Timestamp.Equal(time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)), "timestamp %s", r.Timestamp)
}

func rawBytesAreUntouched(f *fixture) {
	b := f.node()
	got := f.handle(b, "reader", bus.SubscriptionOptions{})
	f.run(b)
	body := []byte{0, 1, 2, 0xff, '{'}
	id, err := b.PublishRaw(f.ctx(), f.topic, body, bus.PublishOptions{ContentType: "application/octet-stream", Type: "Blob"})
	require.NoError(f, err)
	body[0] = 9 // the caller's buffer is the caller's again
	r := next(f, "the message", got)
	require.Equal(f, []byte{0, 1, 2, 0xff, '{'}, r.Body)
	require.Equal(f, id, r.MessageID)
	require.Equal(f, "application/octet-stream", r.ContentType)
	require.Equal(f, "Blob", r.Type)
}

func handlerPublishesInContext(f *fixture) {
	b := f.node()
	second := f.topic + ".second"
	require.NoError(f, bus.Handle(b, f.topic, "first", func(ctx context.Context, e *Noted) error {
		_, err := b.Publish(ctx, second, &Noted{Number: e.Number + 1})
		return err
	}, bus.SubscriptionOptions{}))
	got := make(chan *bus.Received, 1)
	require.NoError(f, b.HandleRaw(second, "second", func(_ context.Context, r *bus.Received) error {
		got <- r
		return nil
	}, bus.SubscriptionOptions{}))
	f.run(b)

	traceID := trace.TraceID{1, 2, 3}
	ctx := trace.ContextWithRemoteSpanContext(f.ctx(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: trace.SpanID{4, 5, 6}, TraceFlags: trace.FlagsSampled,
	}))
	id, err := b.Publish(ctx, f.topic, &Noted{})
	require.NoError(f, err)
	r := next(f, "the second event", got)
	require.Equal(f, id, r.CorrelationID, "the first event's id names the conversation")
	require.Equal(f, id, r.Headers[bus.HeaderCausationID])
	require.Contains(f, r.Headers[bus.HeaderTraceParent], traceID.String())

	_, err = b.PublishWith(f.ctx(), f.topic, &Noted{}, bus.PublishOptions{CorrelationID: "talk"})
	require.NoError(f, err)
	require.Equal(f, "talk", next(f, "the second event", got).CorrelationID)
}

func mandatoryIsRefused(f *fixture) {
	b := f.node()
	_, err := b.PublishWith(f.ctx(), f.topic, &Noted{}, bus.PublishOptions{Mandatory: true})
	require.ErrorIs(f, err, bus.ErrUnroutable)
	_, err = b.Publish(f.ctx(), f.topic, &Noted{})
	require.NoError(f, err, "an event that nobody wants is none")

	got := f.handle(b, "reader", bus.SubscriptionOptions{})
	f.run(b)
	f.publish(b, &Noted{Number: 3}, bus.PublishOptions{Mandatory: true})
	require.EqualValues(f, 3, number(f, next(f, "the event", got)))
}

func endedContextSendsNothing(f *fixture) {
	b := f.node()
	got := f.handle(b, "reader", bus.SubscriptionOptions{})
	f.run(b)
	for _, end := range []func() context.Context{
		func() context.Context {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			return ctx
		},
		func() context.Context {
			ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
			f.Cleanup(cancel)
			return ctx
		},
	} {
		start := time.Now()
		_, err := b.Publish(end(), f.topic, &Noted{Number: 1})
		require.ErrorIs(f, err, bus.ErrUnavailable)
		require.Less(f, time.Since(start), patience)
	}
	f.publish(b, &Noted{Number: 2}, bus.PublishOptions{})
	require.EqualValues(f, 2, number(f, next(f, "the event", got)), "only what was confirmed arrives")
}

func invalidIsRefused(f *fixture) {
	b := f.node(func(c *bus.Config) { c.MaxBodyBytes = 1000 })
	long := strings.Repeat("a", 256)
	for _, topic := range []string{"", ".", "a..b", "a.", ".a", "Upper.case", "a b", "a.*", "a.#", "ä", "a/b", long} {
		_, err := b.Publish(f.ctx(), topic, &Noted{})
		require.ErrorIs(f, err, bus.ErrInvalid, "topic %q", topic)
	}
	for name, o := range map[string]bus.PublishOptions{
		"priority":    {Priority: 10},
		"expiration":  {Expiration: -1},
		"correlation": {CorrelationID: long},
		"type":        {Type: long},
		"exchange":    {Exchange: long},
		"routing key": {RoutingKey: long},
		"message id":  {MessageID: long},
		"routes":      {Headers: map[string]string{"CC": "x"}},
		"more routes": {Headers: map[string]string{"BCC": "x"}},
		"header":      {Headers: map[string]string{"": "x"}},
		"long header": {Headers: map[string]string{long: "x"}},
	} {
		_, err := b.PublishWith(f.ctx(), f.topic, &Noted{}, o)
		require.ErrorIs(f, err, bus.ErrInvalid, name)
	}
	store := f.deadLetterExchange() + "-store"
	for _, key := range []string{"auth:victim", "config:current", "bannou:{" + f.topic + ".other}:own", "Upper.case", "a..b", "a.*", store} {
		_, err := b.PublishWith(f.ctx(), f.topic, &Noted{}, bus.PublishOptions{RoutingKey: key})
		require.ErrorIs(f, err, bus.ErrInvalid, "routing key %q", key)
	}
	for _, exchange := range []string{f.deadLetterExchange(), "a{b}", "a b"} {
		_, err := b.PublishWith(f.ctx(), f.topic, &Noted{}, bus.PublishOptions{Exchange: exchange})
		require.ErrorIs(f, err, bus.ErrInvalid, "exchange %q", exchange)
	}
	_, err := b.Publish(f.ctx(), store, &Noted{})
	require.ErrorIs(f, err, bus.ErrInvalid, "the store is no topic")
	_, err = b.Publish(f.ctx(), f.topic, &Noted{Text: strings.Repeat("x", 1000)})
	require.ErrorIs(f, err, bus.ErrInvalid, "a body over the limit")
	_, err = b.Publish(f.ctx(), f.topic, (*Noted)(nil))
	require.ErrorIs(f, err, bus.ErrInvalid, "a nil event")
	for _, body := range []string{``, `nul`, `[]`, `"x"`, `{`, `{"a":1}{}`, `{"a":1,"a":2}`, `{"eventId":5}`, `{"eventId":""}`, `{"timestamp":"yesterday"}`, "{\"a\":\"\xff\"}"} {
		_, err := b.PublishRaw(f.ctx(), f.topic, []byte(body), bus.PublishOptions{})
		require.ErrorIs(f, err, bus.ErrInvalid, "body %q", body)
	}
	ignore := func(context.Context, *bus.Received) error { return nil }
	for _, queue := range []string{store, store + ".dropped", "amq.gen-x", "registry}:readers:x", "{a"} {
		_, err := b.SubscribeRaw(f.ctx(), f.topic, ignore, bus.SubscriptionOptions{Queue: queue})
		require.ErrorIs(f, err, bus.ErrInvalid, "queue %q", queue)
	}
	for _, topic := range []string{"", "a..b", "a.*b", "a.#b", "A", long, store} {
		require.ErrorIs(f, b.HandleRaw(topic, "h", ignore, bus.SubscriptionOptions{}), bus.ErrInvalid, "topic %q", topic)
		_, err := b.SubscribeRaw(f.ctx(), topic, ignore, bus.SubscriptionOptions{})
		require.ErrorIs(f, err, bus.ErrInvalid, "topic %q", topic)
	}
	require.ErrorIs(f, b.HandleRaw(f.topic, "", ignore, bus.SubscriptionOptions{}), bus.ErrInvalid)
	require.ErrorIs(f, b.HandleRaw(f.topic, "a b", ignore, bus.SubscriptionOptions{}), bus.ErrInvalid)
	require.ErrorIs(f, b.HandleRaw(f.topic, "h", ignore, bus.SubscriptionOptions{Group: long}), bus.ErrInvalid)
	_, err = b.SubscribeRaw(f.ctx(), f.topic, ignore, bus.SubscriptionOptions{Durable: true})
	require.ErrorIs(f, err, bus.ErrInvalid, "durable without a name to come back to")
	_, err = b.Publish(f.ctx(), f.topic, &Noted{})
	require.NoError(f, err, "the bus works on after all of it")
}

func largeBody(f *fixture) {
	b := f.node()
	got := f.handle(b, "reader", bus.SubscriptionOptions{})
	f.run(b)
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	_, err := b.PublishRaw(f.ctx(), f.topic, body, bus.PublishOptions{ContentType: "text/plain"})
	require.NoError(f, err)
	require.True(f, bytes.Equal(body, next(f, "the body", got).Body))
}

func manyPublishersLoseNothing(f *fixture) {
	const publishers, each = 16, 100
	b := f.node()
	got := f.handle(b, "reader", bus.SubscriptionOptions{PrefetchCount: 64})
	f.run(b)
	other := f.node()
	var sending sync.WaitGroup
	failures := make(chan error, publishers*each)
	for p := range publishers {
		from := b
		if p%2 == 1 {
			from = other
		}
		sending.Go(func() {
			for i := range each {
				if _, err := from.Publish(f.ctx(), f.topic, &Noted{Number: int64(p*each + i)}); err != nil {
					failures <- err
				}
			}
		})
	}
	seen := make(map[int64]int)
	for range publishers * each {
		seen[number(f, next(f, fmt.Sprintf("event %d of %d", len(seen)+1, publishers*each), got))]++
	}
	sending.Wait()
	none(f, "a failed publish", failures)
	require.Len(f, seen, publishers*each, "sent %d, handled %d different ones", publishers*each, len(seen))
}

func manyUnderWay(f *fixture) {
	const events = 500
	b := f.node()
	got := f.handle(b, "reader", bus.SubscriptionOptions{PrefetchCount: 1})
	f.run(b)
	var all []*bus.Publication
	for i := range int64(events) {
		p, err := b.PublishAsync(f.ctx(), f.topic, &Noted{Number: i}, bus.PublishOptions{})
		require.NoError(f, err)
		all = append(all, p)
	}
	for i, p := range all {
		require.NoError(f, p.Wait())
		require.NoError(f, p.Wait(), "asked again it says the same")
		r := next(f, "an event", got)
		require.Equal(f, p.ID(), r.MessageID)
		require.EqualValues(f, i, number(f, r))
	}

	_, err := b.PublishAsync(f.ctx(), "*", &Noted{}, bus.PublishOptions{})
	require.ErrorIs(f, err, bus.ErrInvalid)
	p, err := b.PublishRawAsync(f.ctx(), f.topic+".nobody", []byte(`{}`), bus.PublishOptions{Mandatory: true})
	require.NoError(f, err)
	require.ErrorIs(f, p.Wait(), bus.ErrUnroutable)
	require.NoError(f, b.Close(f.ctx()))
	_, err = b.PublishRawAsync(f.ctx(), f.topic, []byte(`{}`), bus.PublishOptions{})
	require.ErrorIs(f, err, bus.ErrClosed)
}
