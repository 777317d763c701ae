package mesh

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whoever takes connections and says nothing holds them for no longer than it may take to connect, though net/http goes on with
// them when the call is over.
func TestAHandshakeThatStandsStillEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, held := time.Now(), make(chan time.Duration, 1)
		transport := &tlsTransport{config: func(appID string) *tls.Config { return &tls.Config{ServerName: appID} },
			plain: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				near, far := net.Pipe()
				go func() {
					_, _ = io.Copy(io.Discard, far)
					held <- time.Since(begin)
				}()
				return near, nil
			}}}
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), calledKey{}, "app"), 20*time.Millisecond)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://192.0.2.1/", nil)
		require.NoError(t, err)
		resp, err := transport.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		select {
		case after := <-held:
			assert.Equal(t, connectTime, after)
		case <-time.After(time.Hour):
			t.Fatal("the connection is still held after an hour")
		}
	})
}
