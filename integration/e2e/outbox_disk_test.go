package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// The disk fills while events are kept. Those that do not fit are refused in a sentence that says so, none that was
// answered 200 is lost, and when there is room again events are kept again.
func TestOutboxOnAFullDisk(t *testing.T) {
	t.Parallel()
	folder := servers.NewSmallDisk(t, 16<<20)
	broker := servers.NewRabbitMQ(t, servers.RabbitOptions{})
	n := startNode(t, append(quick(), "--messaging-backend", "rabbitmq", "--messaging-rabbitmq-urls", broker.URL,
		"--messaging-connection-retry-delay-ms", "100", "--messaging-outbox-after", "300ms", "--data-dir", folder)...)
	topic := topic("disk")
	arrived := listen(t, broker.URL, topic)
	require.NoError(t, broker.Kill())
	ballast := filepath.Join(folder, "ballast")
	require.NoError(t, os.WriteFile(ballast, make([]byte, 3<<20), 0o600))

	padding, kept, count := strings.Repeat("x", 20<<10), map[string]bool{}, 0
	publish := func() (status int, answer string) {
		count++
		body := fmt.Sprintf(`{"topic":%q,"payload":{"line":"a","n":%d,"padding":%q},"options":{"partitionKey":"a"}}`, topic, len(kept), padding)
		res, err := http.Post(n.url+"/messaging/publish", "application/json", strings.NewReader(body))
		require.NoError(t, err)
		defer res.Body.Close()
		raw, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		if res.StatusCode == http.StatusOK {
			_, id, _ := strings.Cut(string(raw), `"messageId":"`)
			kept[id[:36]] = true
		} else {
			require.NotEmpty(t, res.Header.Get("Retry-After"))
		}
		return res.StatusCode, string(raw)
	}
	fill := func() (status int, answer string) {
		for status = http.StatusOK; status == http.StatusOK; status, answer = publish() {
			require.Less(t, count, 2000, "the disk does not fill")
		}
		return status, answer
	}
	status, answer := fill()
	require.Equal(t, http.StatusServiceUnavailable, status, answer)
	require.Contains(t, answer, "the disk of the outbox is full: nothing was kept")
	require.Contains(t, getText(t, n.url+"/readyz", http.StatusServiceUnavailable), "no space is left on the disk")
	first := len(kept)

	require.NoError(t, os.Remove(ballast))
	status, answer = publish()
	require.Equal(t, http.StatusOK, status, answer)
	status, answer = fill()
	require.Equal(t, http.StatusServiceUnavailable, status, answer)
	require.Greater(t, len(kept), first+1)

	// Somebody else takes the rest too, up to the last byte.
	rest := filepath.Join(folder, "rest")
	require.ErrorIs(t, os.WriteFile(rest, make([]byte, 16<<20), 0o600), syscall.ENOSPC)
	status, answer = publish()
	require.Equal(t, http.StatusServiceUnavailable, status, answer)
	require.NoError(t, os.Remove(rest))
	t.Logf("%d events kept on a disk that was full twice, %d refused", len(kept), count-len(kept))

	require.NoError(t, broker.Restart(t.Context()))
	total, next := len(kept), 0
	for len(kept) > 0 {
		select {
		case e := <-arrived:
			if kept[e.id] {
				require.Equal(t, next, e.N)
				next++
				delete(kept, e.id)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%d of %d events did not arrive:\n%s", len(kept), total, n.log)
		}
	}
}
