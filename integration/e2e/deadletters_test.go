package e2e

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// From a callback that fails to its replay, all by the command line, in memory and on each broker.
func TestDeadLetterCommands(t *testing.T) {
	t.Run("memory", func(t *testing.T) { deadLetterCommands(t, startPlain(t, quick()...)) })
	t.Run("rabbitmq", func(t *testing.T) {
		deadLetterCommands(t, startPlain(t, append(quick(), "--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", servers.RabbitMQ(t).URL)...))
	})
	t.Run("redis", func(t *testing.T) {
		deadLetterCommands(t, startPlain(t, append(quick(), "--messaging-backend", "redis", "--messaging-redis-url", servers.Redis(t).URL)...))
	})
}

func deadLetterCommands(t *testing.T, n *node) {
	bannou := func(args ...string) (string, string, int) {
		return run(t, append(append([]string{"dead-letters"}, args...), "--node", n.url)...)
	}
	var mended atomic.Bool
	failing, calls := receiver(t, func(int64) int {
		if mended.Load() {
			return http.StatusOK
		}
		return http.StatusInternalServerError
	})
	healthy, others := receiver(t, func(int64) int { return http.StatusOK })
	s := direct(n.url)
	s.must(t, "messaging/subscribe", object{"topic": "game.lost", "callbackUrl": failing, "options": object{"durable": true, "group": "board"}})
	s.must(t, "messaging/subscribe", object{"topic": "game.lost", "callbackUrl": healthy, "options": object{"durable": true, "group": "mail"}})
	const events = 3
	for i := range events {
		_, errs, code := run(t, "publish", "game.lost", `{"points":`+strconv.Itoa(i)+`}`, "--node", n.url)
		require.Equal(t, 0, code, errs)
		next(t, others)
	}
	type letter struct{ ID, Handler, Queue string }
	var list struct {
		DeadLetters []letter
		Matched     int
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		out, errs, code := bannou("list", "--topic", "game.*", "--error", "500", "--since", "1h", "-o", "json")
		require.Equal(c, 0, code, errs)
		require.NoError(c, json.Unmarshal([]byte(out), &list))
		require.Equal(c, events, list.Matched)
	}, patience, 100*time.Millisecond)
	require.Equal(t, "game.lost.board", list.DeadLetters[0].Queue)
	out, _, _ := bannou("list")
	require.Contains(t, out, "3 of 3")
	out, errs, code := bannou("show", list.DeadLetters[0].ID)
	require.Equal(t, 0, code, errs)
	require.Contains(t, out, `"points":`)
	shown := out

	out, errs, code = bannou("replay", "--handler", "board", "--dry-run")
	require.Equal(t, 0, code, errs)
	require.Equal(t, "3 would be replayed\n", out)
	for len(calls) > 0 { // its attempts before it was given up
		<-calls
	}
	mended.Store(true)
	out, errs, code = bannou("replay", list.DeadLetters[0].ID, "--actor", "ada")
	require.Equal(t, 0, code, errs)
	require.Equal(t, "1 replayed\n", out)
	again := next(t, calls)
	require.Contains(t, shown, again.body["eventId"], "the one that was asked for")
	require.Equal(t, "1", again.header.Get("Bannou-Delivery-Attempt"))
	require.Empty(t, others, "the subscription that had handled it hears nothing")

	_, errs, code = bannou("discard", "--topic", "game.lost")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "--yes")
	_, errs, code = bannou("discard")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "--all")
	out, errs, code = bannou("discard", "--topic", "game.lost", "--yes")
	require.Equal(t, 0, code, errs)
	require.Equal(t, "2 discarded\n", out)
	_, errs, code = bannou("show", list.DeadLetters[0].ID)
	require.Equal(t, 1, code)
	require.Contains(t, errs, "not_found")
	out, _, _ = bannou("list")
	require.Contains(t, out, "0 of 0")

	// The queue of a letter is gone: it stays, and the command says so.
	mended.Store(false)
	sub := s.must(t, "messaging/subscribe", object{"topic": "game.gone", "callbackUrl": failing, "options": object{"durable": true, "group": "board"}})
	s.must(t, "messaging/publish", object{"topic": "game.gone", "payload": object{}})
	require.Eventually(t, func() bool {
		out, _, _ := bannou("list", "--topic", "game.gone")
		return strings.Contains(out, "1 of 1")
	}, patience, 100*time.Millisecond)
	s.must(t, "messaging/unsubscribe", object{"subscriptionId": sub["subscriptionId"]})
	out, errs, code = bannou("replay", "--all")
	require.Equal(t, 1, code)
	require.Contains(t, out, "is gone")
	require.Contains(t, errs, "1 are dead letters still")
	out, _, _ = bannou("list")
	require.Contains(t, out, "1 of 1")
}
