package connect_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/connect"
)

// Of two connections that a session makes at the same time, the newer stays, also where the older is ready later.
func TestTheNewerStaysAmongTwoAtOnce(t *testing.T) {
	w := start(t, 1)
	token, l := w.login("user")
	noted, release := make(chan struct{}), make(chan struct{})
	w.store.afterNextWrite(func() { close(noted); <-release })
	status, older := make(chan int, 1), upgrade(t, w.nodes[0].url, token)
	go func() {
		response, err := http.DefaultClient.Do(older)
		if err != nil {
			status <- 0
			return
		}
		_ = response.Body.Close()
		status <- response.StatusCode
	}()
	<-noted // the older is in the record, and nowhere else
	newer := w.connected(w.nodes[0], token)
	close(release)
	require.Equal(t, http.StatusConflict, <-status)
	w.publish(l.SessionID, "news", `{"n":1}`)
	require.Equal(t, 1, newer.event().Body.N)
}

// upgrade is a handshake without a WebSocket behind it.
func upgrade(t *testing.T, url, token string) *http.Request {
	r := request(t, url, token)
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	} {
		r.Header.Set(name, value)
	}
	return r
}

// A store that hangs holds up nobody who is looked after beside it: who acknowledges nothing is cut off, and, by the same loop, all are pinged.
func TestStoreThatHangs(t *testing.T) {
	w := start(t, 1, func(c *connect.Config) { c.AckTimeout, c.ReconnectWithin = 200*time.Millisecond, 100*time.Millisecond })
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	hangs, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	w.store.afterNextWrite(func() { close(hangs); <-release })
	<-hangs // at the next renewal
	w.publish(l.SessionID, "news", `{"n":1}`)
	require.Equal(t, connect.CloseUnanswered, c.closed())
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

// A connection does not outlive its session by time: who comes back shows an access token, which says whether the session was refreshed.
func TestSessionEndsByTime(t *testing.T) {
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	w := start(t, 1, func(c *connect.Config) { c.Now, c.PingInterval = now, 4*time.Second })
	token, l := w.login("user")
	l.SessionExpiresAt = now().Add(time.Hour)
	w.logins.set(token, l)
	c := w.connected(w.nodes[0], token)
	ahead.Store(int64(time.Hour))
	require.Equal(t, connect.CloseExpired, c.closed())
	_, status := w.dial(w.nodes[0], "Reconnect "+c.Hello.ReconnectToken)
	require.Equal(t, http.StatusUnauthorized, status)
	l.SessionExpiresAt = now().Add(time.Hour) // refreshed
	w.logins.set(token, l)
	require.True(t, w.connected(w.nodes[0], token).Hello.Resumed)
}
