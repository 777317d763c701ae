package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// `bannou serve` is given the addresses of a cluster's nodes, and one after another dies that it may be connected to. What
// is published over HTTP meanwhile is confirmed by the broker, not kept in the outbox, and reaches a durable subscriber.
func TestServeOnCluster(t *testing.T) {
	t.Parallel()
	cluster := servers.NewRabbitCluster(t, 3, servers.RabbitOptions{})
	n := startNode(t, append(quick(), "--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", strings.Join(cluster.URLs(), ","),
		"--messaging-rabbitmq-queue-type", "quorum", "--messaging-connection-retry-delay-ms", "100", "--no-messaging-outbox")...)
	url, calls := receiver(t, ok)
	topic := topic("cluster")
	direct(n.url).must(t, "messaging/subscribe", object{"topic": topic, "callbackUrl": url, "options": object{"durable": true}})
	for i, broker := range cluster.Nodes[:2] {
		require.NoError(t, cluster.Await(t.Context()))
		require.NoError(t, broker.Kill())
		begin := time.Now()
		direct(n.url).must(t, "messaging/publish", object{"topic": topic, "payload": object{"n": i}})
		t.Logf("published %v after a node was killed", time.Since(begin).Round(time.Millisecond))
		for want := fmt.Sprint(i); ; {
			select {
			case c := <-calls:
				if fmt.Sprint(c.body["n"]) == want {
					want = ""
				}
			case <-time.After(patience):
				t.Fatal("it did not arrive")
			}
			if want == "" {
				break
			}
		}
		require.NoError(t, broker.Restart(t.Context()))
	}
}
