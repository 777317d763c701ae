package messaging_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// exchange yields what arrives in an exchange from now on, until the test ends.
func (b *broker) exchange(t *testing.T, name string) <-chan *bus.Message {
	t.Helper()
	consumer, err := b.driver.Subscribe(t.Context(), bus.Queue{
		Name: "reader.of." + name, Exclusive: true, Prefetch: 100, Bindings: []bus.Binding{{Exchange: name, Pattern: "#"}}})
	require.NoError(t, err)
	arrived := make(chan *bus.Message, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for d := range consumer.Deliveries() {
			arrived <- d.Message()
			_ = d.Ack()
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, consumer.Close(context.Background()))
		<-done
	})
	return arrived
}

func arrival(t *testing.T, c <-chan *bus.Message) *bus.Message {
	t.Helper()
	select {
	case m := <-c:
		return m
	case <-time.After(10 * time.Second):
		t.Fatal("no copy came")
		return nil
	}
}

func TestTapCopiesUntilItIsDeleted(t *testing.T) {
	for _, options := range []string{`{}`, `{"durable":true}`} {
		t.Run(options, func(t *testing.T) {
			b := newBroker(t)
			n := b.start(t)
			copies := b.exchange(t, "audit")
			tap := n.must("/messaging/tap/create", `{"topic":"account.*","exchange":"audit","options":`+options+`}`)["tapId"].(string)
			published := n.must("/messaging/publish", `{"topic":"account.created","payload":{"gold":9007199254740993},
				"options":{"priority":7,"correlationId":"talk","headers":{"tenant":"blue"},"partitionKey":"k","expiration":60000}}`)
			m := arrival(t, copies)
			require.Equal(t, "audit", m.Exchange)
			require.Equal(t, "account.created", m.RoutingKey)
			require.Equal(t, published["messageId"], m.ID)
			require.Equal(t, "AccountCreatedEvent", m.Type)
			require.Equal(t, "talk", m.CorrelationID)
			require.EqualValues(t, 7, m.Priority)
			require.Equal(t, time.Minute, m.Expiration)
			require.Equal(t, "blue", m.Headers["tenant"])
			require.Equal(t, "k", m.Headers[bus.HeaderPartitionKey])
			require.Contains(t, string(m.Body), `"gold":9007199254740993`)

			status, _ := n.post("/messaging/unsubscribe", `{"subscriptionId":"`+tap+`"}`)
			require.Equal(t, 404, status, "a tap is not a subscription with a callback")
			require.Equal(t, object{"success": true}, n.must("/messaging/tap/delete", `{"tapId":"`+tap+`"}`))
			status, _ = n.post("/messaging/publish", `{"topic":"account.created","payload":{},"options":{"mandatory":true}}`)
			require.Equal(t, 422, status, "its queue is gone")
			status, _ = n.post("/messaging/tap/delete", `{"tapId":"`+tap+`"}`)
			require.Equal(t, 404, status)
			require.Empty(t, copies)
		})
	}
}

func TestTapsAreListed(t *testing.T) {
	b := newBroker(t)
	one, two := b.start(t), b.start(t)
	url, _ := callback(t)
	sub := one.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":{"durable":true}}`)["subscriptionId"].(string)
	passing := one.must("/messaging/tap/create", `{"topic":"a.b","exchange":"audit"}`)["tapId"]
	durable := one.must("/messaging/tap/create", `{"topic":"a.#","exchange":"archive","options":{"durable":true}}`)["tapId"]
	list := func(n *node) (ids []any) {
		for _, tap := range n.must("/messaging/tap/list", `{}`)["taps"].([]any) {
			ids = append(ids, tap.(object)["tapId"])
		}
		return ids
	}
	require.Equal(t, []any{passing, durable}, list(one))
	require.Equal(t, []any{durable}, list(two), "the other instance keeps the tap that is not durable")
	tap := two.must("/messaging/tap/list", `{}`)["taps"].([]any)[0].(object)
	require.Equal(t, "a.#", tap["topic"])
	require.Equal(t, "archive", tap["exchange"])
	require.Equal(t, true, tap["durable"])
	status, _ := one.post("/messaging/tap/delete", `{"tapId":"`+sub+`"}`)
	require.Equal(t, 404, status, "a subscription with a callback is no tap")
	two.must("/messaging/tap/delete", `{"tapId":"`+durable.(string)+`"}`)
	require.Equal(t, []any{passing}, list(one))
}

func TestDurableTapSurvivesARestart(t *testing.T) {
	b := newBroker(t)
	copies := b.exchange(t, "audit")
	n := b.start(t)
	n.must("/messaging/tap/create", `{"topic":"a.b","exchange":"audit","options":{"durable":true}}`)
	n.must("/messaging/tap/create", `{"topic":"a.b","exchange":"audit"}`)
	n.stop()
	meanwhile, err := b.bus.PublishRaw(t.Context(), "a.b", []byte(`{}`), bus.PublishOptions{})
	require.NoError(t, err)
	n = b.start(t)
	require.Equal(t, meanwhile, arrival(t, copies).ID)
	later := n.must("/messaging/publish", `{"topic":"a.b","payload":{}}`)["messageId"]
	require.Equal(t, later, arrival(t, copies).ID)
	require.Len(t, n.must("/messaging/tap/list", `{}`)["taps"], 1, "the other went with its process")
}

// Two nodes with exchanges of their own tap each other's: an event goes there, and not back.
func TestTapsThatFeedEachOtherEnd(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	n.must("/messaging/tap/create", `{"topic":"a.b","exchange":"audit"}`)
	back, err := b.driver.Subscribe(t.Context(), bus.Queue{
		Name: "back", Exclusive: true, Prefetch: 1, Bindings: []bus.Binding{{Exchange: "audit", Pattern: "#"}}})
	require.NoError(t, err)
	defer func() { require.NoError(t, back.Close(context.Background())) }()
	first := n.must("/messaging/publish", `{"topic":"a.b","payload":{}}`)["messageId"]
	d := <-back.Deliveries()
	require.Equal(t, first, d.Message().ID)
	again := *d.Message()
	again.Exchange = "" // as a bridge that knows nothing of taps would send it back
	require.NoError(t, b.driver.Publish(t.Context(), &again))
	require.NoError(t, d.Ack())
	second := n.must("/messaging/publish", `{"topic":"a.b","payload":{}}`)["messageId"]
	d = <-back.Deliveries()
	require.Equal(t, second, d.Message().ID, "what was in the exchange before is not copied there again")
	require.NoError(t, d.Ack())
}
