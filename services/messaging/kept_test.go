package messaging_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/messaging"
)

// publishDurably publishes an event that some queue keeps.
func publishDurably(t *testing.T, b *broker, topic string) {
	t.Helper()
	_, err := b.bus.PublishRaw(t.Context(), topic, []byte(`{"n":1}`), bus.PublishOptions{Mandatory: true})
	require.NoError(t, err)
}

// A node that is stopped while it takes a durable subscription up again leaves its queue with what waits there.
func TestStoppingWhileResumingKeepsTheQueue(t *testing.T) {
	b := newBroker(t)
	called := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called <- struct{}{} }))
	t.Cleanup(server.Close)
	n := b.start(t)
	n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"`+server.URL+`","options":{"durable":true}}`)
	n.stop()
	publishDurably(t, b, "a.b")

	b.driver.away.Store(true)
	n = b.start(t)
	b.driver.slow.Store(true)
	b.driver.away.Store(false)
	<-b.driver.subscribed
	n.stop()

	b.driver.slow.Store(false)
	publishDurably(t, b, "a.b") // its queue is there while nobody reads it
	b.start(t)
	select {
	case <-called: // by this node, or by the one before when it stopped with the queue in its hands
	case <-time.After(20 * time.Second):
		t.Fatal("what waits is gone")
	}
}

// A subscription that cannot be remembered is refused. The queue of the group that it was to join stays, with what waits there.
func TestARefusedSubscriptionLeavesTheGroupsQueue(t *testing.T) {
	b := newBroker(t)
	url, calls := callback(t)
	body := `{"topic":"a.b","callbackUrl":"` + url + `","options":{"durable":true,"group":"g"}}`
	n := b.start(t)
	n.must("/messaging/subscribe", body)
	n.stop()
	publishDurably(t, b, "a.b")

	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	away, err := state.NewFactory([]state.StoreConfig{{Name: messaging.SubscriptionStore, Backend: "sqlite"}}, []state.Driver{sqlite}, state.Options{})
	require.NoError(t, err)
	n = b.start(t, func(c *messaging.Config) { c.Factory = away })
	require.NoError(t, away.Close())
	status, _ := n.post("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"http://127.0.0.1:1/","options":{"durable":true,"group":"g"}}`)
	require.Equal(t, 503, status)
	n.stop()

	b.start(t)
	next(t, calls).answer <- 200
}

// Durable subscriptions have a limit, at which those that exist can still be removed.
func TestDurableSubscriptionsHaveALimit(t *testing.T) {
	b := newBroker(t)
	n := b.start(t, func(c *messaging.Config) { c.SubscribeTimeout = time.Minute }) // to read and write 4 MiB, watched, on a busy machine
	long := strings.Repeat("x", 2<<10)
	status, answer := n.post("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"http://127.0.0.1:1/`+long+`","options":{"durable":true}}`)
	require.Equal(t, 400, status)
	require.Contains(t, answer["detail"], "callbackUrl")

	store, err := state.Open[object](t.Context(), b.factory, messaging.SubscriptionStore)
	require.NoError(t, err)
	id := n.must("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"http://127.0.0.1:1/","options":{"durable":true}}`)["subscriptionId"].(string)
	all, err := store.Get(t.Context(), "durable")
	require.NoError(t, err)
	for i := range 1600 { // as many as fit, of those that are removed already and wait for their queues to go
		all[fmt.Sprint("other-", i)] = object{"subscriptionId": fmt.Sprint("other-", i), "topic": "a.b", "callbackUrl": long,
			"durable": true, "group": "g", "createdAt": "2026-01-01T00:00:00Z", "endedAt": "2999-01-01T00:00:00Z"}
	}
	_, err = store.Save(t.Context(), "durable", all)
	require.NoError(t, err)
	status, answer = n.post("/messaging/subscribe", `{"topic":"a.b","callbackUrl":"http://127.0.0.1:1/","options":{"durable":true}}`)
	require.Equal(t, 413, status)
	require.Contains(t, answer["detail"], "as many durable subscriptions and taps as one set of nodes keeps")
	n.must("/messaging/unsubscribe", `{"subscriptionId":"`+id+`"}`)
}
