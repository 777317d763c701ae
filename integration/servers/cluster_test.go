package servers_test

import (
	"os"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// TestRabbitCluster kills the node that a replicated queue was made on, and another after it: what was confirmed is read from the third.
func TestRabbitCluster(t *testing.T) {
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	begin := time.Now()
	cluster := servers.NewRabbitCluster(t, 3, servers.RabbitOptions{})
	t.Logf("a cluster of 3 answers after %v", time.Since(begin).Round(time.Millisecond))
	require.Len(t, cluster.URLs(), 3)

	_, err := connect(t, cluster.Nodes[0].URL).QueueDeclare("replicated", true, false, false, false, amqp.Table{amqp.QueueTypeArg: "quorum"})
	require.NoError(t, err)
	for i, node := range cluster.Nodes[:2] {
		other := cluster.Nodes[i+1]
		require.NoError(t, cluster.Await(within(t, time.Minute)))
		require.NoError(t, node.Kill())
		require.NoError(t, other.Probe(within(t, 5*time.Second)), "one that was not killed")
		publishUntilConfirmed(t, other.URL, "replicated", "kept")
		require.NoError(t, node.Restart(within(t, time.Minute)))
	}
	require.NoError(t, cluster.Await(within(t, time.Minute)))
	for range 2 {
		message, found, err := connect(t, cluster.Nodes[2].URL).Get("replicated", true)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, "kept", string(message.Body))
	}

	require.NoError(t, cluster.Nodes[1].Pause())
	require.NoError(t, cluster.Close(), "also with a node that is paused")
	require.NoError(t, cluster.Close())
	require.ErrorIs(t, cluster.Nodes[0].Restart(t.Context()), servers.ErrClosed)
	require.EventuallyWithT(t, func(c *assert.CollectT) { assert.Empty(c, left(t, os.Getenv("TMPDIR"))) }, patience, 10*time.Millisecond)
}

// publishUntilConfirmed sends a message again for as long as the broker answers with a nack, as it does while a queue has no leader. RabbitMQ 3.10
// goes on doing so on the same channel when there is one.
func publishUntilConfirmed(t *testing.T, url, queue, body string) {
	t.Helper()
	require.Eventually(t, func() bool {
		confirmation, err := connect(t, url).PublishWithDeferredConfirmWithContext(t.Context(), "", queue, true, false, amqp.Publishing{Body: []byte(body)})
		if err != nil {
			return false
		}
		acknowledged, err := confirmation.WaitContext(within(t, 20*time.Second))
		return err == nil && acknowledged
	}, patience, 50*time.Millisecond)
}
