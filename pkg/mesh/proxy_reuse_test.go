package mesh_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// A response that does not wait for the request's body must not cost the caller its connection, or the next call on it.
func TestProxyKeepsConnectionsWhoseBodyNobodyRead(t *testing.T) {
	heedless := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	proxied(t, heedless, mesh.ClientConfig{}, func(t *testing.T, base string) {
		for _, c := range []struct {
			name, url string
			status    int
		}{
			{"unread by the target", base + "svc/x", http.StatusTeapot},
			{"no such target", base[:len(base)-len("bannou-svc/method/")] + "nobody/method/x", http.StatusNotFound},
			{"no target at all", base[:len(base)-len("method/")], http.StatusBadRequest},
		} {
			for _, size := range []int{0, 11, 4 << 10, 100 << 10} {
				for range 20 {
					resp, err := http.Post(c.url, "text/plain", bytes.NewReader(make([]byte, size)))
					require.NoError(t, err, "%s, %d bytes", c.name, size)
					_, err = io.Copy(io.Discard, resp.Body)
					require.NoError(t, err)
					require.NoError(t, resp.Body.Close())
					require.Equal(t, c.status, resp.StatusCode, c.name)
				}
			}
		}
	})
}
