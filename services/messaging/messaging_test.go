package messaging_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/messaging"
)

func TestPublishReachesACallbackAsItIs(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	url, calls := callback(t)
	created := n.must("/messaging/subscribe", `{"topic":"account.created","callbackUrl":"`+url+`/hook?a=1"}`)
	require.NotEmpty(t, created["subscriptionId"])
	require.Contains(t, created["queueName"], "account.created.dynamic.")

	published := n.must("/messaging/publish", `{"topic":"account.created","payload":{"gold":9007199254740993,"rate":1.10,"nested":{"b":[1,2]}}}`)
	require.Equal(t, true, published["success"])
	c := next(t, calls)
	c.answer <- 204
	require.Contains(t, c.body, `"gold":9007199254740993,"rate":1.10,"nested":{"b":[1,2]}}`)
	var body object
	require.NoError(t, json.Unmarshal([]byte(c.body), &body))
	require.Equal(t, published["messageId"], body["eventId"])
	_, err := time.Parse(time.RFC3339Nano, body["timestamp"].(string))
	require.NoError(t, err)
	require.Equal(t, "account.created", c.header.Get("Bannou-Topic"))
	require.Equal(t, published["messageId"], c.header.Get("Bannou-Message-Id"))
	require.Equal(t, "1", c.header.Get("Bannou-Delivery-Attempt"))
	require.Equal(t, "application/json", c.header.Get("Content-Type"))

	n.must("/messaging/publish", `{"topic":"account.created","payload":{"eventId":"0190b3a0-0000-7000-8000-000000000001","timestamp":"2026-01-02T03:04:05Z"}}`)
	c = next(t, calls)
	c.answer <- 200
	require.Empty(t, strings.Replace(c.body, `{"eventId":"0190b3a0-0000-7000-8000-000000000001","timestamp":"2026-01-02T03:04:05Z"}`, "", 1),
		"an event that has both is not touched")
}

func TestTraceContextReachesTheCallback(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	url, calls := callback(t)
	n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`"}`)
	request, err := http.NewRequest(http.MethodPost, n.url+"/messaging/publish", strings.NewReader(`{"topic":"a.b","payload":{}}`))
	require.NoError(t, err)
	request.Header.Set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	response, err := n.client.Do(request)
	require.NoError(t, err)
	response.Body.Close()
	c := next(t, calls)
	c.answer <- 200
	require.Contains(t, c.header.Get("traceparent"), "0af7651916cd43dd8448eb211c80319c")
}

func TestFailingCallbacksAreRetriedThenDeadLettered(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	url, calls := callback(t)
	n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`"}`)
	n.must("/messaging/publish", `{"topic":"a.b","payload":{"n":1}}`)
	var last string
	for attempt, status := range []int{500, 302, 404} {
		c := next(t, calls)
		require.Equal(t, fmt.Sprint(attempt+1), c.header.Get("Bannou-Delivery-Attempt"))
		if last != "" {
			require.Equal(t, last, c.body)
		}
		last = c.body
		c.answer <- status
	}
	require.Eventually(t, func() bool {
		topics, err := b.bus.Topics(t.Context())
		if err != nil {
			return false
		}
		for _, info := range topics {
			if strings.HasPrefix(info.Name, "dead-letter") && info.MessageCount == 1 {
				return true
			}
		}
		return false
	}, 20*time.Second, 5*time.Millisecond, "the event is among the dead letters")
	select {
	case <-calls:
		t.Fatal("the event was sent again after it was dead-lettered")
	default:
	}
}

func TestANetworkErrorIsRetried(t *testing.T) {
	b := newBroker(t)
	n := b.start(t, func(c *messaging.Config) { c.CallbackTimeout = 300 * time.Millisecond })
	url, calls := callback(t)
	n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`"}`)
	n.must("/messaging/publish", `{"topic":"a.b","payload":{}}`)
	next(t, calls) // not answered: the call ends by its timeout
	c := next(t, calls)
	require.NotEqual(t, "1", c.header.Get("Bannou-Delivery-Attempt"))
	c.answer <- 200
}

func TestGoneUnsubscribes(t *testing.T) {
	b := newBroker(t)
	removed := make(chan *events.SubscriptionRemovedEvent, 1)
	sub, err := bus.Subscribe(t.Context(), b.bus, events.TopicMessagingSubscriptionRemoved,
		func(_ context.Context, e *events.SubscriptionRemovedEvent) error { removed <- e; return nil }, bus.SubscriptionOptions{})
	require.NoError(t, err)
	defer sub.Close(context.Background())
	n := b.start(t)
	url, calls := callback(t)
	created := n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":{"durable":true}}`)
	n.must("/messaging/publish", `{"topic":"a.b","payload":{}}`)
	next(t, calls).answer <- 410
	e := <-removed
	require.Equal(t, created["subscriptionId"], e.SubscriptionID)
	require.Equal(t, events.SubscriptionRemovedReasonExplicit, e.Reason)
	status, answer := n.post("/messaging/publish", `{"topic":"a.b","payload":{},"options":{"mandatory":true}}`)
	require.Equal(t, 422, status, "its queue is gone")
	require.Equal(t, "unroutable", answer["code"])
	status, _ = n.post("/messaging/unsubscribe", `{"subscriptionId":"`+created["subscriptionId"].(string)+`"}`)
	require.Equal(t, 404, status)
}

func TestUnsubscribe(t *testing.T) {
	b := newBroker(t)
	told := make(chan string, 4)
	for topic, h := range map[string]func(context.Context, *bus.Received) error{
		events.TopicMessagingSubscriptionCreated: func(_ context.Context, r *bus.Received) error { told <- "created " + string(r.Body); return nil },
		events.TopicMessagingSubscriptionRemoved: func(_ context.Context, r *bus.Received) error { told <- "removed " + string(r.Body); return nil },
	} {
		sub, err := b.bus.SubscribeRaw(t.Context(), topic, h, bus.SubscriptionOptions{})
		require.NoError(t, err)
		defer sub.Close(context.Background())
	}
	n := b.start(t)
	url, calls := callback(t)
	for _, options := range []string{`{}`, `{"durable":true}`, `{"durable":true,"group":"audit"}`} {
		id := n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":`+options+`}`)["subscriptionId"].(string)
		line := <-told
		require.Contains(t, line, "created")
		require.Contains(t, line, id)
		require.Equal(t, object{"success": true}, n.must("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`))
		line = <-told
		require.Contains(t, line, "removed")
		require.Contains(t, line, `"explicit"`)
		status, _ := n.post("/messaging/publish", `{"topic":"a.b","payload":{},"options":{"mandatory":true}}`)
		require.Equal(t, 422, status, "%s: its queue is gone", options)
		status, answer := n.post("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`)
		require.Equal(t, 404, status)
		require.Equal(t, "not_found", answer["code"])
	}
	require.Empty(t, calls)
}

func TestDurableSubscriptionsSurviveARestart(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	url, calls := callback(t)
	durable := n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":{"durable":true}}`)
	grouped := n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":{"durable":true,"group":"audit"}}`)
	require.Equal(t, "a.b.audit", grouped["queueName"])
	n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`"}`)
	n.stop()

	// What is published meanwhile waits.
	_, err := b.bus.PublishRaw(t.Context(), "a.b", []byte(`{"n":1}`), bus.PublishOptions{})
	require.NoError(t, err)
	again := b.start(t)
	for range 2 {
		c := next(t, calls)
		require.Contains(t, c.body, `"n":1`)
		c.answer <- 200
	}
	// The third was not durable: two calls for the next event as well.
	again.must("/messaging/publish", `{"topic":"a.b","payload":{"n":2}}`)
	for range 2 {
		c := next(t, calls)
		require.Contains(t, c.body, `"n":2`)
		c.answer <- 200
	}
	again.must("/messaging/unsubscribe", `{"subscriptionId":"`+durable["subscriptionId"].(string)+`"}`)
	again.stop()
	third := b.start(t)
	third.must("/messaging/publish", `{"topic":"a.b","payload":{"n":3}}`)
	next(t, calls).answer <- 200
	require.Empty(t, calls)
}

func TestAGroupsQueueStaysUntilItsLastSubscriptionGoes(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	url, calls := callback(t)
	subscribe := `{"topic":"a.b","callbackUrl":"` + url + `","options":{"durable":true,"group":"audit"}}`
	first := n.must("/messaging/subscribe", subscribe)["subscriptionId"].(string)
	second := n.must("/messaging/subscribe", subscribe)["subscriptionId"].(string)
	n.must("/messaging/unsubscribe", `{"subscriptionId":"`+first+`"}`)
	n.must("/messaging/publish", `{"topic":"a.b","payload":{},"options":{"mandatory":true}}`)
	next(t, calls).answer <- 200
	n.must("/messaging/unsubscribe", `{"subscriptionId":"`+second+`"}`)
	status, _ := n.post("/messaging/publish", `{"topic":"a.b","payload":{},"options":{"mandatory":true}}`)
	require.Equal(t, 422, status)
}

func TestADurableSubscriptionIsRemovedThroughAnotherInstance(t *testing.T) {
	b := newBroker(t)
	one := b.start(t)
	url, calls := callback(t)
	id := one.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":{"durable":true}}`)["subscriptionId"].(string)
	two := b.start(t)
	one.must("/messaging/publish", `{"topic":"a.b","payload":{"n":1}}`)
	next(t, calls).answer <- 200
	three := b.start(t)
	two.must("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`)
	require.Eventually(t, func() bool {
		status, _ := three.post("/messaging/publish", `{"topic":"a.b","payload":{},"options":{"mandatory":true}}`)
		for len(calls) > 0 { // what got through before all instances heard of it
			(<-calls).answer <- 200
		}
		return status == 422
	}, 10*time.Second, 5*time.Millisecond)
	status, _ := one.post("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`)
	require.Equal(t, 404, status)
}

func TestListTopics(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	url, calls := callback(t)
	n.must("/messaging/subscribe", `{"topic":"zoo.opened","callbackUrl":"`+url+`","options":{"prefetchCount":1}}`)
	for range 3 {
		n.must("/messaging/publish", `{"topic":"zoo.opened","payload":{}}`)
	}
	c := next(t, calls)
	find := func(body string) object {
		for _, topic := range n.must("/messaging/list-topics", body)["topics"].([]any) {
			if topic.(object)["name"] == "zoo.opened" {
				return topic.(object)
			}
		}
		return nil
	}
	require.EqualValues(t, 1, find("")["consumerCount"])
	require.Nil(t, find(`{"exchangeFilter":"other"}`))
	require.NotNil(t, find(`{"exchangeFilter":"ban"}`))
	require.NotNil(t, find(`{"includeEmpty":false}`))
	c.answer <- 200
	for range 2 {
		next(t, calls).answer <- 200
	}
	require.Eventually(t, func() bool { return find(`{"includeEmpty":false}`) == nil }, 5*time.Second, 5*time.Millisecond)
	require.NotNil(t, find(`{}`))
}

func TestMessagePublishedIsOffUnlessAskedFor(t *testing.T) {
	b := newBroker(t)
	seen := make(chan *events.MessagePublishedEvent, 4)
	sub, err := bus.Subscribe(t.Context(), b.bus, events.TopicMessagingMessagePublished,
		func(_ context.Context, e *events.MessagePublishedEvent) error { seen <- e; return nil }, bus.SubscriptionOptions{})
	require.NoError(t, err)
	defer sub.Close(context.Background())
	b.start(t).must("/messaging/publish", `{"topic":"quiet.one","payload":{}}`)
	loud := b.start(t, func(c *messaging.Config) { c.AnnouncePublished = true })
	loud.must("/messaging/publish", `{"topic":"loud.one","payload":{}}`)
	require.Equal(t, "loud.one", (<-seen).Topic)
	loud.must("/messaging/publish", `{"topic":"messaging.message.published","payload":{"topic":"by hand","messageId":"x"}}`)
	require.Equal(t, "by hand", (<-seen).Topic)
	loud.must("/messaging/publish", `{"topic":"loud.two","payload":{}}`)
	require.Equal(t, "loud.two", (<-seen).Topic, "it is not published about itself")
}

func TestTail(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url+"/messaging/tail", strings.NewReader(`{"topic":"account.*"}`))
	require.NoError(t, err)
	response, err := n.client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, 200, response.StatusCode)
	require.Equal(t, "text/event-stream", response.Header.Get("Content-Type"))
	lines := bufio.NewReader(response.Body)
	event := func() map[string]string {
		got := map[string]string{}
		for {
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			line = strings.TrimSuffix(line, "\n")
			if line == "" && len(got) > 0 {
				return got
			}
			name, value, ok := strings.Cut(line, ": ")
			switch {
			case ok && name != "":
				got[name] += value
			case ok: // a comment
				got["comment"] = value
			}
			if got["comment"] != "" {
				delete(got, "comment")
				_, err := lines.ReadString('\n')
				require.NoError(t, err)
				return map[string]string{"comment": value}
			}
		}
	}
	require.Equal(t, "following", event()["comment"])
	require.Equal(t, "still here", event()["comment"])
	n.must("/messaging/publish", `{"topic":"other.created","payload":{}}`)
	var ids []string
	for i := range 20 {
		ids = append(ids, n.must("/messaging/publish", fmt.Sprintf(`{"topic":"account.created","payload":{"n":%d,"text":"a\nb"}}`, i))["messageId"].(string))
	}
	for i := range 20 {
		e := event()
		for e["comment"] != "" {
			e = event()
		}
		require.Equal(t, ids[i], e["id"], "in order")
		require.Equal(t, "AccountCreatedEvent", e["event"])
		require.Equal(t, "account.created", e["topic"])
		var body object
		require.NoError(t, json.Unmarshal([]byte(e["data"]), &body))
		require.Equal(t, "a\nb", body["text"])
	}
	cancel()
	require.Eventually(t, func() bool {
		status, _ := n.post("/messaging/publish", `{"topic":"account.created","payload":{},"options":{"mandatory":true}}`)
		return status == 422
	}, 10*time.Second, 5*time.Millisecond, "the queue goes with the request")
}

func TestTailEndsWhenTheNodeDrains(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	response, err := n.client.Post(n.url+"/messaging/tail", "", strings.NewReader(`{"topic":"#"}`))
	require.NoError(t, err)
	defer response.Body.Close()
	stopped := make(chan struct{})
	go func() { n.stop(); close(stopped) }()
	scanner := bufio.NewScanner(response.Body)
	last := ""
	for scanner.Scan() {
		if scanner.Text() != "" {
			last = scanner.Text()
		}
	}
	require.NoError(t, scanner.Err(), "the stream ends in good order")
	require.Equal(t, ": the node is stopping", last)
	<-stopped
}

func TestABrokerThatIsClosedIsUnavailable(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	require.NoError(t, b.bus.Close(t.Context()))
	for path, body := range map[string]string{
		"/messaging/publish":   `{"topic":"a.b","payload":{}}`,
		"/messaging/subscribe": `{"topic":"a.b","callbackUrl":"http://127.0.0.1:1/"}`,
		"/messaging/tail":      `{"topic":"a.b"}`,
	} {
		status, answer := n.post(path, body)
		require.Equal(t, 503, status, path)
		require.Equal(t, "unavailable", answer["code"], path)
	}
}
