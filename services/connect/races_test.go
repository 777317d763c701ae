package connect_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/connect"
)

// Of connections that a session makes at the same time, one stays, and it is not told that it has been replaced.
func TestOneOfManyAtOnceStays(t *testing.T) {
	w := start(t, 1)
	for range 20 {
		token, l := w.login("user")
		conns := make([]*websocket.Conn, 6)
		var all sync.WaitGroup
		for n := range conns {
			all.Go(func() {
				url := "ws" + strings.TrimPrefix(w.nodes[0].url, "http") + "/connect"
				c, _, err := websocket.DefaultDialer.DialContext(t.Context(), url, http.Header{"Authorization": {"Bearer " + token}})
				if err == nil {
					conns[n] = c
				}
			})
		}
		all.Wait()
		w.publish(l.SessionID, "news", `{"n":1}`)
		got := make(chan bool, len(conns))
		for _, c := range conns {
			if c == nil {
				got <- false
				continue
			}
			t.Cleanup(func() { _ = c.Close() })
			go func() {
				_ = c.SetReadDeadline(time.Now().Add(wait))
				for {
					_, data, err := c.ReadMessage()
					if err != nil || strings.Contains(string(data), `"event"`) {
						got <- err == nil
						return
					}
				}
			}()
		}
		alive := false
		for range conns {
			if alive = <-got || alive; alive {
				break
			}
		}
		require.True(t, alive, "no connection is left")
	}
}

// Control frames are paid for like calls: who floods with them is cut off.
func TestFloodOfPings(t *testing.T) {
	for _, kind := range []int{websocket.PingMessage, websocket.PongMessage} {
		w := start(t, 1, func(c *connect.Config) { c.Rate, c.Burst = 1, 5 })
		token, _ := w.login("user")
		c := w.connected(w.nodes[0], token)
		for range 200 {
			if c.WriteMessage(kind, nil) != nil {
				break
			}
		}
		require.Equal(t, connect.ClosePolicy, c.closed())
	}
}
