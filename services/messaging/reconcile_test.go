package messaging_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/messaging"
)

// often makes an instance look at the store without delay.
func often(c *messaging.Config) { c.ReconcileInterval = 5 * time.Millisecond }

func TestAnInstanceGoesOnWithTheSubscriptionsOfOneThatEnded(t *testing.T) {
	b := newBroker(t)
	one, two := b.start(t, often), b.start(t, often)
	url, calls := callback(t)
	for _, options := range []string{`{"durable":true}`, `{"durable":true,"exclusive":true}`} {
		one.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":`+options+`}`)
	}
	one.stop()
	two.must("/messaging/publish", `{"topic":"a.b","payload":{"n":1}}`)
	for range 2 {
		c := next(t, calls)
		require.Contains(t, c.body, `"n":1`)
		c.answer <- 200
	}
}

func TestAnExclusiveSubscriptionIsRemovedThroughAnotherInstance(t *testing.T) {
	b := newBroker(t)
	one, two := b.start(t, often), b.start(t, often)
	url, _ := callback(t)
	id := one.must("/messaging/subscribe",
		`{"topic":"a.b","callbackUrl":"`+url+`","options":{"durable":true,"exclusive":true}}`)["subscriptionId"].(string)
	two.must("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`)
	require.Eventually(t, func() bool {
		routed, err := two.try("/messaging/publish", `{"topic":"a.b","payload":{},"options":{"mandatory":true}}`)
		if err != nil {
			return false
		}
		known, err := two.try("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`)
		return err == nil && routed == 422 && known == 404
	}, 20*time.Second, 5*time.Millisecond)
}

// What another instance has removed is not there, also before this one has heard of it.
func TestARemovedSubscriptionIsNotFoundOnAnyInstance(t *testing.T) {
	b := newBroker(t)
	url, _ := callback(t)
	one, two := b.start(t), b.start(t, often)
	for range 50 {
		id := one.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":{"durable":true}}`)["subscriptionId"].(string)
		two.must("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`)
		status, _ := one.post("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`)
		require.Equal(t, 404, status)
	}
}

// A queue that nobody reads and nobody can remove any more would fill the broker's disk.
func TestARemovalThatFailsHalfWayCanBeAskedForAgain(t *testing.T) {
	for name, restart := range map[string]bool{"same instance": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t)
			n := b.start(t)
			url, calls := callback(t)
			id := n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":{"durable":true}}`)["subscriptionId"].(string)
			b.driver.keepQueues.Store(true)
			status, answer := n.post("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`)
			require.Equal(t, 503, status, "%v", answer)
			n.must("/messaging/publish", `{"topic":"a.b","payload":{}}`)
			b.driver.keepQueues.Store(false)
			if restart {
				n.stop()
				n = b.start(t)
			}
			n.must("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`)
			status, _ = n.post("/messaging/publish", `{"topic":"a.b","payload":{},"options":{"mandatory":true}}`)
			require.Equal(t, 422, status, "its queue is gone")
			require.Empty(t, calls, "what was told to end is not called again")
		})
	}
}

func TestARemovalThatNobodyAsksForAgainIsFinished(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	b.start(t, often, func(c *messaging.Config) { c.SubscribeTimeout = 200 * time.Millisecond }) // which takes it up after twice as long
	url, _ := callback(t)
	id := n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":{"durable":true}}`)["subscriptionId"].(string)
	b.driver.keepQueues.Store(true)
	status, _ := n.post("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`)
	require.Equal(t, 503, status)
	b.driver.keepQueues.Store(false)
	require.Eventually(t, func() bool {
		status, err := n.try("/messaging/publish", `{"topic":"a.b","payload":{},"options":{"mandatory":true}}`)
		return err == nil && status == 422
	}, 20*time.Second, 5*time.Millisecond)
}

func TestUnsubscribeDoesNotWaitForASlowCallback(t *testing.T) {
	b := newBroker(t)
	n := b.start(t, func(c *messaging.Config) { c.SubscribeTimeout = 2 * time.Second })
	url, calls := callback(t)
	for _, options := range []string{`{}`, `{"durable":true}`} {
		id := n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+url+`","options":`+options+`}`)["subscriptionId"].(string)
		n.must("/messaging/publish", `{"topic":"a.b","payload":{}}`)
		next(t, calls) // and never answered
		n.must("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`)
		status, _ := n.post("/messaging/publish", `{"topic":"a.b","payload":{},"options":{"mandatory":true}}`)
		require.Equal(t, 422, status, "%s: its queue is gone", options)
	}
}
