package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// Two nodes keep events in one MySQL while the broker is away. When it is back and they are sending, one of the nodes is
// killed. Every event that was answered 200 arrives, those of a key first in their order.
func TestOutboxOfTwoNodes(t *testing.T) {
	t.Parallel()
	const keys, each = 8, 150
	broker, database := servers.NewRabbitMQ(t, servers.RabbitOptions{}), servers.MySQL(t).DSN
	args := append(quick(), "--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", broker.URL, "--state-mysql-dsn", database,
		"--messaging-connection-retry-delay-ms", "100", "--messaging-outbox-after", "500ms")
	first, second := startNode(t, args...), startNode(t, args...)
	topic := topic("shared")
	arrived := listen(t, broker.URL, topic)

	require.NoError(t, broker.Kill())
	sent := publishKeys(t, first, topic, "first", keys, each)
	maps.Copy(sent, publishKeys(t, second, topic, "second", keys, each))
	require.Len(t, sent, 2*keys*each)
	require.NoError(t, broker.Restart(t.Context()))

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // a dead node's claims last for 30 s
	defer cancel()
	expected, duplicates, total, killed := map[string]int{}, 0, len(sent), false
	for len(sent) > 0 {
		var e lineEvent
		select {
		case e = <-arrived:
		case <-ctx.Done():
			t.Fatalf("%d of %d events did not arrive", len(sent), total)
		}
		if !sent[e.id] {
			duplicates++
			continue
		}
		require.Equal(t, expected[e.Line], e.N, "key %s", e.Line)
		expected[e.Line]++
		delete(sent, e.id)
		if !killed && total-len(sent) >= 100 {
			first.kill()
			killed = true
		}
	}
	t.Logf("%d events answered 200 by two nodes, one killed while sending: %d arrived twice, 0 lost", total, duplicates)
}

type lineEvent struct {
	id   string
	Line string
	N    int
}

// listen keeps an account of what arrives at a durable subscription, also after the broker was away.
func listen(t *testing.T, url, topic string) <-chan lineEvent {
	t.Helper()
	driver, err := rabbitbus.New(rabbitbus.Config{URLs: []string{url}, RetryDelay: 100 * time.Millisecond})
	require.NoError(t, err)
	b, err := bus.New(driver, bus.Config{AppID: "listener"})
	require.NoError(t, err)
	arrived := make(chan lineEvent, 10_000)
	_, err = b.SubscribeRaw(t.Context(), topic, func(_ context.Context, r *bus.Received) error {
		a := lineEvent{id: r.MessageID}
		if err := json.Unmarshal(r.Body, &a); err != nil {
			return bus.Permanent(err)
		}
		arrived <- a
		return nil
	}, bus.SubscriptionOptions{Group: "listener", Durable: true})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, b.Close(ctx))
		require.NoError(t, driver.Close(ctx))
	})
	return arrived
}

// publishKeys is publishLines with keys of one node's own.
func publishKeys(t *testing.T, n *node, topic, name string, keys, each int) map[string]bool {
	t.Helper()
	failed, ids := make(chan error, keys), make(chan string, keys*each)
	for k := range keys {
		go func() {
			var err error
			for i := 0; i < each && err == nil; i++ {
				var id string
				if id, err = publishQueued(n.url, topic, fmt.Sprint(name, "-", k), i); err == nil {
					ids <- id
				}
			}
			failed <- err
		}()
	}
	for range keys {
		require.NoError(t, <-failed)
	}
	close(ids)
	queued := map[string]bool{}
	for id := range ids {
		queued[id] = true
	}
	return queued
}
