package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// The broker is killed, events are published over HTTP, the node is killed too, and both come back: every event that was
// answered with 200 reaches a durable subscriber, those of one key in their order.
func TestOutboxSurvivesBrokerAndNode(t *testing.T) {
	t.Parallel()
	eachBroker(t, outboxSurvives)
}

// ownBroker starts a broker that a test may kill, with the arguments that name it to a node.
func ownBroker(t *testing.T, kind string) (*servers.Server, []string) {
	if kind == "redis" {
		r := servers.NewRedis(t, servers.RedisOptions{})
		return r.Server, []string{"--messaging-backend", kind, "--messaging-redis-url", r.URL}
	}
	r := servers.NewRabbitMQ(t, servers.RabbitOptions{})
	return r.Server, []string{"--messaging-backend", kind, "--messaging-rabbitmq-urls", r.URL}
}

func outboxSurvives(t *testing.T, kind string) {
	t.Parallel() // most of it is waiting for what the killed node had claimed
	const keys, each = 8, 40
	broker, named := ownBroker(t, kind)
	folder, address := t.TempDir(), freeAddress(t)
	args := append(append(quick(), named...), "--messaging-connection-retry-delay-ms", "100", "--messaging-outbox-after", "500ms", "--data-dir", folder)
	n := launchAs(t, binary, address, args...) // whose bus keeps the order of what has one key
	n.waitReady(t)
	url, calls := receiver(t, ok)
	topic := topic("outbox")
	direct(n.url).must(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": url, "options": object{"durable": true}})

	require.NoError(t, broker.Kill())
	sent := publishLines(t, n.url, topic, keys, each)
	require.Len(t, sent, keys*each)
	require.Eventually(t, func() bool { // one that was added while the table was read is counted twice until it is read again
		return strings.Contains(getText(t, n.url+"/readyz", http.StatusOK), fmt.Sprintf(`"outboxDepth":%d`, keys*each))
	}, patience, 20*time.Millisecond)
	require.Contains(t, getText(t, n.url+"/readyz", http.StatusOK), `{"name":"bus","status":"degraded"`)
	require.Contains(t, getText(t, n.url+"/metrics", http.StatusOK), fmt.Sprintf("bannou_messaging_outbox_depth %d", keys*each))
	n.kill()

	n = launchAs(t, binary, address, args...)
	require.Eventually(t, n.ready, patience, 20*time.Millisecond, "a node that can keep events is ready without its broker:\n%s", n.log)
	late := publishLines(t, n.url, topic, keys, 1)
	require.NoError(t, broker.Restart(t.Context()))

	// The pauses between attempts to connect have grown while the broker was away.
	back, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	expected, duplicates := map[string]int{}, 0
	for len(sent)+len(late) > 0 {
		var c call
		select {
		case c = <-calls:
		case <-back.Done():
			t.Fatalf("%d events did not arrive", len(sent)+len(late))
		}
		id := c.header.Get("Bannou-Message-Id")
		key, i := c.body["line"].(string), int(c.body["n"].(float64))
		if !sent[id] && !late[id] {
			duplicates++
			continue
		}
		want := expected[key]
		if late[id] {
			want, i = each, i+each
		}
		require.Equal(t, want, i, "key %s", key)
		expected[key]++
		delete(sent, id)
		delete(late, id)
	}
	t.Logf("%d events published while the broker was away, %d handled again, 0 lost", keys*(each+1), duplicates)
	require.Eventually(t, func() bool {
		return strings.Contains(getText(t, n.url+"/readyz", 0), `"outboxDepth":0`)
	}, patience, 20*time.Millisecond)
	status, answer := post(t, n.url+"/messaging/publish", object{"topic": topic, "payload": object{}})
	require.Equal(t, http.StatusOK, status)
	require.NotContains(t, answer, "queued")
}

// Over the limit the answer is 503 with Retry-After.
func TestOutboxIsFull(t *testing.T) { eachBroker(t, outboxIsFull) }

func outboxIsFull(t *testing.T, kind string) {
	broker, named := ownBroker(t, kind)
	n := startNode(t, append(append(quick(), named...), "--messaging-outbox-after", "300ms", "--messaging-outbox-max-events", "2")...)
	require.NoError(t, broker.Kill())
	for range 2 {
		status, answer := post(t, n.url+"/messaging/publish", object{"topic": "full", "payload": object{}})
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, true, answer["queued"])
	}
	res, err := http.Post(n.url+"/messaging/publish", "application/json", strings.NewReader(`{"topic":"full","payload":{}}`))
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, http.StatusServiceUnavailable, res.StatusCode)
	require.NotEmpty(t, res.Header.Get("Retry-After"))
	require.Contains(t, getText(t, n.url+"/readyz", http.StatusServiceUnavailable), "the outbox is full")
}

// publishLines publishes each so many events of so many keys, keys side by side, and returns the ids of those that were
// answered as queued.
func publishLines(t *testing.T, base, topic string, keys, each int) map[string]bool {
	t.Helper()
	var (
		mu     sync.Mutex
		wait   sync.WaitGroup
		queued = map[string]bool{}
		failed []string
	)
	for k := range keys {
		wait.Go(func() {
			for i := range each {
				id, err := publishQueued(base, topic, fmt.Sprint("key-", k), i)
				mu.Lock()
				if err != nil {
					failed = append(failed, err.Error())
				} else {
					queued[id] = true
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	require.Empty(t, failed)
	return queued
}

func publishQueued(base, topic, key string, i int) (id string, err error) {
	body := fmt.Sprintf(`{"topic":%q,"payload":{"line":%q,"n":%d},"options":{"partitionKey":%q}}`, topic, key, i, key)
	res, err := http.Post(base+"/messaging/publish", "application/json", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	var answer struct {
		MessageID string
		Queued    bool
	}
	if err := json.Unmarshal(raw, &answer); err != nil || res.StatusCode != http.StatusOK || !answer.Queued {
		return "", fmt.Errorf("%s %d was answered %d %s", key, i, res.StatusCode, raw)
	}
	return answer.MessageID, nil
}

// getText reads a page; status 0 is any.
func getText(t *testing.T, url string, status int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	if status != 0 {
		require.Equal(t, status, res.StatusCode, "%s", raw)
	}
	return string(raw)
}
