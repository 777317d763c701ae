package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/connect"
)

// More waits for a client than is kept, which reads and acknowledges nothing: it is cut off with a reason, its queue is gone, and with an access
// token it begins anew.
func TestGatewayOverflows(t *testing.T) {
	t.Parallel()
	eachBroker(t, func(t *testing.T, broker string) {
		for _, limit := range [][]string{{"--connect-max-waiting-events", "20"}, {"--connect-max-waiting-bytes", "20000"}} {
			t.Run(strings.TrimPrefix(limit[0], "--connect-"), func(t *testing.T) {
				t.Parallel()
				args := append(append(serversWith(t, broker), "--connect-window", "1"), limit...)
				here := startNode(t, args...)
				status, answer := postAs(t, http.DefaultClient, here.url+"/auth/register", object{"email": "ada@example.org", "password": "correct horse battery"})
				require.Equal(t, http.StatusOK, status, "%v", answer)
				l := loginFrom(t, answer)
				c, first := greetedBy(t, here, "Bearer "+l.AccessToken)
				publish := func(n int) {
					status, answer := postAs(t, http.DefaultClient, here.url+"/messaging/publish",
						object{"topic": "session." + l.SessionID + ".news", "payload": object{"n": n, "text": strings.Repeat("x", 900)}})
					require.Equal(t, http.StatusOK, status, "%v", answer)
				}
				for n := range 60 {
					publish(n)
				}
				require.Equal(t, connect.CloseOverflow, closeCode(t, c))
				_, response, err := dialAs(t, here, "Reconnect "+first.ReconnectToken)
				require.Error(t, err)
				require.Equal(t, http.StatusUnauthorized, response.StatusCode)
				c, again := greetedBy(t, here, "Bearer "+l.AccessToken)
				require.False(t, again.Resumed)
				publish(100)
				require.Equal(t, 100, firstEvent(t, c), "what the broker tells late of the queue that is gone does not cut it off")
			})
		}
	})
}

type greeting struct {
	ReconnectToken string `json:"reconnectToken"`
	Resumed        bool   `json:"resumed"`
}

func dialAs(t *testing.T, n *node, authorization string) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	return websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(n.url, "http")+"/connect", http.Header{"Authorization": {authorization}})
}

func greetedBy(t *testing.T, n *node, authorization string) (*websocket.Conn, greeting) {
	t.Helper()
	c, _, err := dialAs(t, n, authorization)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	var first struct{ Hello greeting }
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	require.NoError(t, c.ReadJSON(&first))
	return c, first.Hello
}

// firstEvent reads until an event comes, and returns its number.
func firstEvent(t *testing.T, c *websocket.Conn) int {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	for {
		var m struct {
			Event *struct {
				Body struct {
					N int `json:"n"`
				} `json:"body"`
			} `json:"event"`
		}
		require.NoError(t, c.ReadJSON(&m))
		if m.Event != nil {
			return m.Event.Body.N
		}
	}
}

// closeCode reads until the connection is closed.
func closeCode(t *testing.T, c *websocket.Conn) int {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	for {
		if _, _, err := c.ReadMessage(); err != nil {
			closed, is := err.(*websocket.CloseError) //nolint:errorlint // the library returns it bare
			require.True(t, is, "%v", err)
			return closed.Code
		}
	}
}
