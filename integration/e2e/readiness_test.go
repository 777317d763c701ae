package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// A node that cannot declare the queue of one of its handlers is not ready: what its callers published would be confirmed and handled by
// nobody. It becomes ready by itself.
func TestNotReadyBeforeItsQueuesStand(t *testing.T) {
	t.Parallel()
	broker := servers.RabbitMQ(t).URL
	conn, err := amqp.Dial(broker)
	require.NoError(t, err)
	defer conn.Close()
	ch, err := conn.Channel()
	require.NoError(t, err)
	const queue = "session.updated.bannou.update-session"
	_, err = ch.QueueDeclare(queue, false, true, true, false, nil) // exclusive: nobody else may have it
	require.NoError(t, err)

	n := launch(t, freeAddress(t), "--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", broker)
	says := func(status int, text string) {
		t.Helper()
		var early string
		require.Eventually(t, func() bool {
			res, err := http.Get(n.url + "/readyz")
			if err != nil {
				return false
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err == nil && status == http.StatusServiceUnavailable && res.StatusCode == http.StatusOK {
				early = string(body)
				return true
			}
			return err == nil && res.StatusCode == status && strings.Contains(string(body), text)
		}, patience, 5*time.Millisecond)
		require.Empty(t, early, "ready without the queue")
	}
	says(http.StatusServiceUnavailable, "not reading yet: "+queue)
	require.NoError(t, conn.Close())
	says(http.StatusOK, "")
}
