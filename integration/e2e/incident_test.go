package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// A hundred events die in one subscription, and whoever listens to service.error hears of it once, with what is needed to
// find them. That a listener of service.error fails itself is told to nobody.
func TestDeadLettersAreToldOnce(t *testing.T) {
	t.Run("memory", func(t *testing.T) { deadLettersAreToldOnce(t) })
	t.Run("rabbitmq", func(t *testing.T) {
		deadLettersAreToldOnce(t, "--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", servers.RabbitMQ(t).URL)
	})
}

func deadLettersAreToldOnce(t *testing.T, args ...string) {
	const events = 100
	n := startPlain(t, append(args, "--messaging-retry-delay-ms", "200", "--messaging-retry-max-attempts", "0", "--instance-id", "one")...)
	failing := failingReceiver(t)
	told, calls := receiver(t, ok)
	s := direct(n.url)
	durable := func(group string) object { return object{"durable": true, "group": group} }
	s.must(t, "messaging/subscribe", object{"topic": "service.error", "callbackUrl": told})
	s.must(t, "messaging/subscribe", object{"topic": "service.error", "callbackUrl": failing, "options": durable("bad")})
	s.must(t, "messaging/subscribe", object{"topic": "game.lost", "callbackUrl": failing, "options": durable("board")})
	ids := map[string]bool{}
	for i := range events {
		answer := s.must(t, "messaging/publish", object{"topic": "game.lost", "payload": object{"n": i}, "options": object{"correlationId": "round"}})
		ids[answer["messageId"].(string)] = true
	}
	first := next(t, calls).body
	require.Eventually(t, func() bool {
		list := s.must(t, "messaging/dead-letters/list", object{"filter": object{"topic": "#"}, "limit": 1})
		return list["matched"] == json.Number(strconv.Itoa(events+1)) // the one of service.error too
	}, patience, 50*time.Millisecond)

	require.Equal(t, "messaging", first["serviceName"])
	require.Equal(t, "bannou", first["appId"])
	require.Equal(t, "one", first["instanceId"])
	require.Equal(t, "deadLetter", first["kind"])
	require.Equal(t, "game.lost.board", first["operation"])
	require.Equal(t, "max-retries-exceeded", first["code"])
	require.Contains(t, first["message"], "500")
	require.Equal(t, "game.lost", first["topic"])
	require.True(t, ids[first["messageId"].(string)], "%v", first)
	require.Equal(t, "round", first["correlationId"])
	require.GreaterOrEqual(t, first["occurrences"], 1.0)

	// What was published to the topic since would come before this.
	s.must(t, "messaging/publish", object{"topic": "service.error", "payload": object{"mark": true}})
	require.Equal(t, true, next(t, calls).body["mark"])
	require.Contains(t, getText(t, n.url+"/metrics", http.StatusOK), "bannou_incidents_reported_total")
}

// What is held back is told when the window ends: the occurrences add up to the events that died.
func TestIncidentsAddUp(t *testing.T) {
	const events = 50
	n := startPlain(t, "--messaging-retry-max-attempts", "0", "--messaging-error-window", "500ms")
	failing := failingReceiver(t)
	told, calls := receiver(t, ok)
	s := direct(n.url)
	s.must(t, "messaging/subscribe", object{"topic": "service.error", "callbackUrl": told})
	s.must(t, "messaging/subscribe", object{"topic": "game.lost", "callbackUrl": failing})
	for range events {
		s.must(t, "messaging/publish", object{"topic": "game.lost", "payload": object{}})
	}
	count, sum := 0, 0.0
	for sum < events {
		sum += next(t, calls).body["occurrences"].(float64)
		count++
	}
	require.Equal(t, events, int(sum))
	t.Logf("%d events died, told of in %d events", events, count)
}

// failingReceiver is a callback that always fails, and keeps no account of it.
func failingReceiver(t *testing.T) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(server.Close)
	return server.URL
}
