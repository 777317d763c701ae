package rabbitbus

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// received is a publishing as the broker would deliver it.
func received(p amqp.Publishing, exchange, key string) amqp.Delivery {
	return amqp.Delivery{
		Headers: p.Headers, ContentType: p.ContentType, DeliveryMode: p.DeliveryMode, Priority: p.Priority,
		CorrelationId: p.CorrelationId, Expiration: p.Expiration, MessageId: p.MessageId, Timestamp: p.Timestamp,
		Type: p.Type, Exchange: exchange, RoutingKey: key, Body: p.Body,
	}
}

func anyMessage() *rapid.Generator[*bus.Message] {
	return rapid.Custom(func(t *rapid.T) *bus.Message {
		short := rapid.StringN(0, 60, maxShortString)
		m := &bus.Message{
			Exchange: short.Draw(t, "exchange"), RoutingKey: short.Draw(t, "key"), ID: short.Draw(t, "id"), Type: short.Draw(t, "type"),
			ContentType: short.Draw(t, "content type"), CorrelationID: short.Draw(t, "correlation id"),
			Timestamp:  time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "time"), 0),
			Priority:   rapid.Uint8Range(0, 9).Draw(t, "priority"),
			Expiration: time.Duration(rapid.Int64Range(0, 1<<32-1).Draw(t, "expiration")) * time.Millisecond,
			Transient:  rapid.Bool().Draw(t, "transient"),
			Headers:    rapid.MapOfN(short, rapid.String(), 0, 8).Draw(t, "headers"),
			Body:       rapid.SliceOf(rapid.Byte()).Draw(t, "body"),
		}
		maps.DeleteFunc(m.Headers, func(name, _ string) bool { return isOwnHeader(name) || isDeathHeader(name) })
		return m
	})
}

// What is published arrives as it was, at once and after any number of retries.
func TestMessagesTravelUnchanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := anyMessage().Draw(t, "message")
		require.NoError(t, checkMessage(m, 1<<20, false))
		p := toPublishing(m)
		require.NoError(t, p.Headers.Validate())
		for _, v := range p.Headers {
			require.IsType(t, "", v, "a stock Watermill program reads strings only")
		}
		raw := received(p, m.Exchange, m.RoutingKey)
		for want := 1; want <= 1+rapid.IntRange(0, 4).Draw(t, "retries"); want++ {
			got, attempt := fromDelivery(&raw)
			require.Equal(t, m, got)
			require.Equal(t, want, attempt)
			d := &delivery{raw: raw, message: got, attempt: attempt}
			p := d.again()
			require.Empty(t, p.Expiration, "it would cut the delay short")
			raw = received(p, "", "queue")
			raw.Headers["x-death"] = []any{amqp.Table{"reason": "expired", "queue": "queue.delay.5"}}
			raw.Headers["x-first-death-reason"] = "expired"
		}
	})
}

func TestAttemptCountsRedeliveries(t *testing.T) {
	for _, c := range []struct {
		name string
		raw  amqp.Delivery
		want int
	}{
		{"first", amqp.Delivery{}, 1},
		{"classic queue, redelivered", amqp.Delivery{Redelivered: true}, 2},
		{"quorum queue, redelivered twice", amqp.Delivery{Redelivered: true, Headers: amqp.Table{"x-delivery-count": int64(2)}}, 3},
		{"retried", amqp.Delivery{Headers: amqp.Table{headerAttempt: "4"}}, 4},
		{"retried and redelivered", amqp.Delivery{Redelivered: true, Headers: amqp.Table{headerAttempt: "4", "x-delivery-count": int32(1)}}, 5},
		{"nonsense", amqp.Delivery{Headers: amqp.Table{headerAttempt: "x", "x-delivery-count": "many"}}, 1},
		{"negative", amqp.Delivery{Headers: amqp.Table{headerAttempt: int32(-3), "x-delivery-count": int64(-3)}}, 1},
		{"too many", amqp.Delivery{Headers: amqp.Table{headerAttempt: int64(1) << 62}}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, attempt := fromDelivery(&c.raw)
			require.Equal(t, c.want, attempt)
		})
	}
}

// What the broker itself dead-lettered reads as if the bus had done it.
func TestBrokerDeadLettersAreDescribed(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	raw := amqp.Delivery{Headers: amqp.Table{"k": "v", "x-death": []any{
		amqp.Table{"reason": "expired", "queue": "orders.q", "exchange": "bannou", "routing-keys": []any{"orders.placed"}, "time": at, "count": int64(1)},
	}}}
	m, _ := fromDelivery(&raw)
	account := m.Headers["x-death"]
	delete(m.Headers, "x-death")
	require.Equal(t, map[string]string{
		"k": "v", bus.HeaderDiscardReason: bus.DiscardExpired, bus.HeaderOriginalQueue: "orders.q", bus.HeaderOriginalExchange: "bannou",
		bus.HeaderOriginalTopic: "orders.placed", bus.HeaderDiscardedAt: "2026-01-02T03:04:05Z", bus.HeaderRetryCount: "0",
	}, m.Headers)
	require.JSONEq(t, `[{"count":1,"exchange":"bannou","queue":"orders.q","reason":"expired","routing-keys":["orders.placed"],"time":"2026-01-02T03:04:05Z"}]`, account)

	for _, odd := range []any{nil, "text", []any{}, []any{"text"}, []any{amqp.Table{"routing-keys": "x", "time": 5}}} {
		m, _ := fromDelivery(&amqp.Delivery{Headers: amqp.Table{"x-death": odd}})
		require.NotContains(t, m.Headers, bus.HeaderDiscardReason)
	}
}

// anyValue is any value that AMQP can carry in a header.
func anyValue() *rapid.Generator[any] {
	scalar := rapid.OneOf(
		rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.Int8().AsAny(), rapid.Uint8().AsAny(), rapid.Int16().AsAny(), rapid.Uint16().AsAny(),
		rapid.Int32().AsAny(), rapid.Uint32().AsAny(), rapid.Int64().AsAny(), rapid.Float32().AsAny(), rapid.Float64().AsAny(), rapid.String().AsAny(),
		rapid.SliceOf(rapid.Byte()).AsAny(), rapid.Map(rapid.Int64(), func(n int64) any { return time.Unix(n>>20, 0) }),
		rapid.Just[any](amqp.Decimal{Scale: 2, Value: 314}), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) any { return string(b) }),
	)
	return rapid.OneOf(scalar,
		rapid.Map(rapid.SliceOfN(scalar, 0, 4), func(l []any) any { return l }),
		rapid.Map(rapid.MapOfN(rapid.String(), scalar, 0, 4), func(m map[string]any) any { return amqp.Table(m) }),
	)
}

// Whatever another program writes into headers becomes text, the driver's own and the broker's headers included.
func TestAnyHeaderIsRead(t *testing.T) {
	names := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"x-death", "x-delivery-count", "x-first-death-queue", headerAttempt,
		headerExchange, headerExpiration, headerWatermillID, headerReturnTag, headerRoutingKey}))
	rapid.Check(t, func(t *rapid.T) {
		raw := amqp.Delivery{Headers: rapid.MapOfN(names, anyValue(), 0, 6).Draw(t, "headers"), Expiration: rapid.String().Draw(t, "expiration")}
		m, attempt := fromDelivery(&raw)
		require.Positive(t, attempt)
		require.NotNil(t, m)
		d := &delivery{raw: raw, message: m, attempt: attempt}
		_, again := fromDelivery(&amqp.Delivery{Headers: d.again().Headers})
		require.Equal(t, attempt+1, again)
	})
}

func TestRefusedMessages(t *testing.T) {
	long := strings.Repeat("x", maxShortString+1)
	for what, m := range map[string]*bus.Message{
		"exchange": {Exchange: long}, "routing key": {RoutingKey: long}, "id": {ID: long}, "type": {Type: long}, "content type": {ContentType: long},
		"correlation id": {CorrelationID: long}, "body": {Body: make([]byte, 11)}, "expiration": {Expiration: maxExpiration + 1},
		"priority": {Priority: 10}, "header's name": {Headers: map[string]string{long: ""}},
		"headers": {Headers: map[string]string{"a": strings.Repeat("x", maxHeaderBytes)}},
	} {
		err := checkMessage(m, 10, false)
		require.ErrorIs(t, err, bus.ErrInvalid)
		require.ErrorContains(t, err, what)
	}
	require.NoError(t, checkMessage(&bus.Message{Body: make([]byte, 10)}, 10, false))
	require.Equal(t, "1", milliseconds(time.Nanosecond), "0 would expire at once")
	require.True(t, slices.IsSorted([]string{milliseconds(time.Millisecond), milliseconds(2 * time.Millisecond)}))
}

// What fits as an event fits as its dead letter, whatever its history.
func TestLetterOfTheLargestHeadersFits(t *testing.T) {
	long := strings.Repeat("n", maxShortString)
	m := &bus.Message{RoutingKey: long, Exchange: long, Expiration: time.Hour, Timestamp: time.Now(), Headers: map[string]string{
		"h": strings.Repeat("x", maxHeaderBytes-7)}}
	require.NoError(t, checkMessage(m, 0, false))
	letter := bus.DeadLetter(m, bus.Discard{Queue: long, DeadLetterExchange: "bannou-dlx", Reason: bus.DiscardMaxRetries, Attempt: 1 << 30,
		Err: errors.New(strings.Repeat("e", 5000)), At: time.Now()})
	require.NoError(t, checkMessage(letter, 0, true))
	require.ErrorIs(t, checkMessage(letter, 0, false), bus.ErrInvalid)
}

func FuzzExpiration(f *testing.F) {
	f.Add("60000")
	f.Add("-1")
	f.Fuzz(func(t *testing.T, s string) {
		if d := parseMilliseconds(s); d < 0 || d > maxExpiration {
			t.Fatal(s, d)
		}
	})
}
