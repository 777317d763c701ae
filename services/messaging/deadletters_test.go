package messaging_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/messaging"
)

// failing is a durable subscription to game.scored that fails for good until it is mended.
func failing(t *testing.T, b *broker) (mend func(), handled chan string) {
	t.Helper()
	var mended atomic.Bool
	handled = make(chan string, 10_000)
	sub, err := b.bus.SubscribeRaw(t.Context(), "game.scored", func(_ context.Context, r *bus.Received) error {
		if !mended.Load() {
			return bus.Permanent(errors.New("the scoreboard is broken"))
		}
		handled <- r.MessageID
		return nil
	}, bus.SubscriptionOptions{Group: "board", Durable: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Close(context.Background()) })
	return func() { mended.Store(true) }, handled
}

// scored publishes events and waits until they are dead letters.
func scored(t *testing.T, b *broker, n *node, count int) (ids []string) {
	t.Helper()
	for i := range count {
		id, err := b.bus.PublishRaw(t.Context(), "game.scored", fmt.Appendf(nil, `{"points":%d.50}`, i), bus.PublishOptions{})
		require.NoError(t, err)
		ids = append(ids, id)
	}
	require.Eventually(t, func() bool {
		_, list, err := n.ask("/messaging/dead-letters/list", `{"limit":1}`)
		return err == nil && list["matched"] == float64(count)
	}, 20*time.Second, 10*time.Millisecond)
	return ids
}

func TestDeadLetters(t *testing.T) {
	b := newBroker(t)
	n := b.start(t, func(c *messaging.Config) { c.AppID = "node-a" })
	audits := make(chan *bus.Received, 10)
	watching, err := b.bus.SubscribeRaw(t.Context(), "messaging.dead-letters.*", func(_ context.Context, r *bus.Received) error {
		audits <- r
		return nil
	}, bus.SubscriptionOptions{})
	require.NoError(t, err)
	defer func() { require.NoError(t, watching.Close(context.Background())) }()
	mend, handled := failing(t, b)
	scored(t, b, n, 5)

	list := n.must("/messaging/dead-letters/list", `{"filter":{"topic":"game.*","errorContains":"Scoreboard"},"order":"oldest","limit":3}`)
	letters := list["deadLetters"].([]any)
	require.Len(t, letters, 3)
	require.EqualValues(t, 5, list["matched"])
	first := letters[0].(object)
	require.Equal(t, "board", first["handler"])
	require.Equal(t, "game.scored.board", first["queue"])
	require.Equal(t, "permanent", first["reason"])
	require.NotContains(t, first, "body")
	more := n.must("/messaging/dead-letters/list", `{"order":"oldest","limit":3,"cursor":"`+list["cursor"].(string)+`"}`)
	require.Len(t, more["deadLetters"], 2)
	require.NotContains(t, more, "cursor")

	id := first["id"].(string)
	response, err := n.client.Post(n.url+"/messaging/dead-letters/get", "application/json", strings.NewReader(`{"id":"`+id+`"}`))
	require.NoError(t, err)
	text, err := bufio.NewReader(response.Body).ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	require.Contains(t, text, `.50}`, "to the digit")

	mend()
	dry := n.must("/messaging/dead-letters/replay", `{"all":true,"dryRun":true}`)
	require.EqualValues(t, 5, dry["replayed"])
	done := n.must("/messaging/dead-letters/replay", `{"ids":["`+id+`"],"actor":"ada"}`)
	require.EqualValues(t, 1, done["replayed"])
	require.Equal(t, first["messageId"], <-handled)
	var replayed events.DeadLettersReplayedEvent
	audit := <-audits
	require.NoError(t, json.Unmarshal(audit.Body, &replayed))
	require.Equal(t, events.TopicMessagingDeadLettersReplayed, audit.Topic)
	require.Equal(t, "ada", replayed.Actor)
	require.EqualValues(t, 1, replayed.Count)
	require.Equal(t, []string{id}, replayed.IDs)

	gone := n.must("/messaging/dead-letters/discard", `{"filter":{"handler":"board"}}`)
	require.EqualValues(t, 4, gone["discarded"])
	var discarded events.DeadLettersDiscardedEvent
	require.NoError(t, json.Unmarshal((<-audits).Body, &discarded))
	require.Equal(t, "node-a", discarded.Actor)
	require.Equal(t, `{"handler":"board"}`, discarded.Filter)
	require.EqualValues(t, 0, n.must("/messaging/dead-letters/list", ``)["total"])
	none := n.must("/messaging/dead-letters/discard", `{"all":true}`)
	require.EqualValues(t, 0, none["matched"])
	require.Empty(t, audits, "nothing done, nothing told")
	require.Empty(t, handled)
}

// What is not JSON is shown in base64, and what no subscription is known of is not replayed.
func TestForeignDeadLetters(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	require.NoError(t, b.driver.Publish(t.Context(), &bus.Message{Exchange: "bannou-dlx", RoutingKey: "dead-letter.other.topic", Body: []byte{0xff}}))
	letter := n.must("/messaging/dead-letters/list", `{}`)["deadLetters"].([]any)[0].(object)
	require.Equal(t, "other.topic", letter["topic"])
	require.Equal(t, "/w==", n.must("/messaging/dead-letters/get", `{"id":"`+letter["id"].(string)+`"}`)["bodyBase64"])
	answer := n.must("/messaging/dead-letters/replay", `{"all":true}`)
	require.EqualValues(t, 1, answer["failedCount"])
	require.Contains(t, answer["failed"].([]any)[0].(object)["reason"], "does not say which queue")
}

// A replay of many tells how far it is, line by line.
func TestReplayStreamsProgress(t *testing.T) {
	b := newBroker(t)
	n := b.start(t)
	mend, handled := failing(t, b)
	const count = 2000
	ids := scored(t, b, n, count)
	mend()
	response, err := n.client.Post(n.url+"/messaging/dead-letters/replay", "application/json", strings.NewReader(`{"all":true,"progress":true}`))
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, "application/x-ndjson", response.Header.Get("Content-Type"))
	var last object
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		last = nil
		require.NoError(t, json.Unmarshal(lines.Bytes(), &last), lines.Text())
	}
	require.EqualValues(t, count, last["done"])
	require.EqualValues(t, count, last["result"].(object)["replayed"])
	seen := map[string]bool{}
	for range count {
		seen[<-handled] = true
	}
	require.Len(t, seen, len(ids), "each once")
}

// Who asks for dead letters while they cannot be read is told so.
func TestReadingDeadLettersDoesNotWaitForEver(t *testing.T) {
	b := newBroker(t)
	n := b.start(t, func(c *messaging.Config) { c.LettersTimeout = 50 * time.Millisecond })
	other, err := b.driver.Letters(t.Context())
	require.NoError(t, err)
	for path, body := range map[string]string{"list": "{}", "get": `{"id":"x"}`} {
		status, answer := n.post("/messaging/dead-letters/"+path, body)
		require.Equal(t, 503, status, path)
		require.Equal(t, "unavailable", answer["code"])
	}
	require.NoError(t, other.Close(t.Context()))
	b.start(t).must("/messaging/dead-letters/list", "{}")
}
