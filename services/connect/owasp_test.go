package connect_test

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/services/connect"
	"github.com/bannou-mesh/bannou/services/connect/client"
)

// Who shows no token, a wrong one, or one in the URL does not connect.
func TestWhoDoesNotConnect(t *testing.T) {
	w := start(t, 1)
	token, l := w.login("user")
	for name, authorization := range map[string]string{
		"nothing": "", "another scheme": "Basic " + token, "no token": "Bearer ", "an unknown token": "Bearer nothing",
		"no reconnection token":       "Reconnect " + token,
		"one of a session without it": "Reconnect " + l.SessionID + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 32)),
	} {
		t.Run(name, func(t *testing.T) {
			_, status := w.dial(w.nodes[0], authorization)
			require.Equal(t, http.StatusUnauthorized, status)
		})
	}
	_, status := w.dial(w.nodes[0], "", "?access_token="+token, "&token="+token)
	require.Equal(t, http.StatusUnauthorized, status, "a URL is in logs")
	response, err := http.DefaultClient.Do(request(t, w.nodes[0].url, token))
	require.NoError(t, err)
	require.Equal(t, http.StatusBadRequest, response.StatusCode, "no WebSocket")
	require.NoError(t, response.Body.Close())
	http.DefaultClient.CloseIdleConnections()
}

func request(t *testing.T, url, token string) *http.Request {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/connect", nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// A browser shows its token as a subprotocol, which the node does not say back.
func TestBrowsersConnect(t *testing.T) {
	w := start(t, 1)
	token, _ := w.login("user")
	d := websocket.Dialer{Subprotocols: []string{"bannou.access." + token, connect.Subprotocol}}
	c, response, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(w.nodes[0].url, "http")+"/connect", http.Header{"Origin": {"https://game.example"}})
	require.NoError(t, err)
	require.Equal(t, connect.Subprotocol, response.Header.Get("Sec-WebSocket-Protocol"))
	greeted := w.greeted(c)
	require.NoError(t, greeted.Close())

	d.Subprotocols[0] = "bannou.reconnect." + greeted.Hello.ReconnectToken
	c, _, err = d.DialContext(t.Context(), "ws"+strings.TrimPrefix(w.nodes[0].url, "http")+"/connect", nil)
	require.NoError(t, err)
	require.True(t, w.greeted(c).Hello.Resumed)
}

// A reconnection token is good for one use, of two at the same time too.
func TestReconnectionTokensAreUsedOnce(t *testing.T) {
	w := start(t, 2)
	token, _ := w.login("user")
	c := w.connected(w.nodes[0], token)
	require.NoError(t, c.Close())
	var mu sync.Mutex
	statuses := map[int]int{}
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			url := "ws" + strings.TrimPrefix(w.nodes[n%2].url, "http") + "/connect"
			v, response, err := websocket.DefaultDialer.DialContext(t.Context(), url, http.Header{"Authorization": {"Reconnect " + c.Hello.ReconnectToken}})
			if err == nil {
				defer v.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[response.StatusCode]++
		})
	}
	all.Wait()
	require.Equal(t, map[int]int{101: 1, 401: 7}, statuses)
	http.DefaultClient.CloseIdleConnections()
}

// What is no frame ends the connection with a code that says so.
func TestMalformedFrames(t *testing.T) {
	w := start(t, 1)
	for name, m := range map[string]struct {
		kind int
		data string
		code int
	}{
		"no JSON":                        {websocket.TextMessage, `hello`, connect.CloseMalformed},
		"an array":                       {websocket.TextMessage, `[]`, connect.CloseMalformed},
		"unknown members":                {websocket.TextMessage, `{"path":"/a","admin":true}`, connect.CloseMalformed},
		"members twice":                  {websocket.TextMessage, `{"path":"/a","path":"/b"}`, connect.CloseMalformed},
		"no path":                        {websocket.TextMessage, `{"id":1}`, connect.CloseMalformed},
		"an id that is an object":        {websocket.TextMessage, `{"id":{},"path":"/a"}`, connect.CloseMalformed},
		"an acknowledgement with a call": {websocket.TextMessage, `{"ack":1,"path":"/a"}`, connect.CloseMalformed},
		"deep":                           {websocket.TextMessage, `{"path":"/a","body":` + strings.Repeat("[", 20_000), connect.CloseMalformed},
		"no UTF-8":                       {websocket.TextMessage, "{\"path\":\"/\xff\"}", connect.CloseMalformed},
		"a short header":                 {websocket.BinaryMessage, strings.Repeat("\x00", connect.RequestHeaderBytes-1), connect.CloseMalformed},
		"unknown flags":                  {websocket.BinaryMessage, "\x80" + strings.Repeat("\x00", connect.RequestHeaderBytes), connect.CloseMalformed},
		"too long":                       {websocket.TextMessage, `{"path":"/a","body":"` + strings.Repeat("a", 64<<10) + `"}`, connect.CloseTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			token, _ := w.login("user")
			c := w.connected(w.nodes[0], token)
			require.NoError(t, c.WriteMessage(m.kind, []byte(m.data)))
			require.Equal(t, m.code, c.closed())
			_, status := w.dial(w.nodes[0], "Reconnect "+c.Hello.ReconnectToken)
			require.Equal(t, 101, status, "the session has not ended")
		})
	}
}

// The ids of endpoints are a session's own: those of another mean nothing, though it may call the same.
func TestForeignGUIDs(t *testing.T) {
	w := start(t, 1)
	guids := map[string]*conn{}
	for range 2 {
		token, l := w.login("user")
		c := w.connected(w.nodes[0], token)
		w.allow(l.SessionID, 1, "POST /echo/say")
		_, list := c.manifest()
		guids[list[0].GUID] = c
	}
	require.Len(t, guids, 2)
	for id, c := range guids {
		for other := range guids {
			r := connect.Request{Endpoint: uuid.MustParse(other), MessageID: 1}
			require.NoError(t, c.WriteMessage(websocket.BinaryMessage, r.Append(nil)))
			want := connect.CodeForbidden
			if other == id {
				want = connect.CodeOK
			}
			require.Equal(t, want, c.readBinary().Code)
		}
	}
}

// A service is told whose call it is by the gateway, whatever the client says; nothing else of the client's gets into the head.
func TestNobodyForgesASession(t *testing.T) {
	w := start(t, 1)
	token, l := w.login("user")
	url := "ws" + strings.TrimPrefix(w.nodes[0].url, "http") + "/connect"
	ws, _, err := websocket.DefaultDialer.DialContext(t.Context(), url, http.Header{
		"Authorization": {"Bearer " + token}, connect.SessionHeader: {"forged"}, connect.AccountHeader: {"forged"},
	})
	require.NoError(t, err)
	c := w.greeted(ws)
	w.allow(l.SessionID, 1, "POST /echo/who")
	c.manifest()
	c.send(`{"id":1,"path":"/echo/who","body":{"Bannou-Session-Id":"forged"}}`)
	var body struct{ Session, Account []string }
	require.NoError(t, json.Unmarshal(c.read("status")["body"], &body, json.MatchCaseInsensitiveNames(true)))
	require.Equal(t, []string{l.SessionID}, body.Session)
	require.Equal(t, []string{l.AccountID}, body.Account)
	for _, path := range []string{"/echo/who?x=1", "/echo/../echo/who", "//echo/who", "/echo/who#", "/Echo/who", "/echo/who\\r\\nBannou-Session-Id: forged"} {
		c.send(fmt.Sprintf(`{"id":1,"service":"echo","path":"%s"}`, path))
		require.Equal(t, "403", string(c.read("status")["status"]), path)
	}
}

// The newer of two connections of a session is its only one, on the same node and on another.
func TestTheNewerConnectionWins(t *testing.T) {
	w := start(t, 2)
	token, l := w.login("user")
	first := w.connected(w.nodes[0], token)
	second := w.connected(w.nodes[0], token)
	require.Equal(t, connect.CloseReplaced, first.closed())
	third := w.connected(w.nodes[1], token)
	require.Equal(t, connect.CloseReplaced, second.closed())
	w.publish(l.SessionID, "news", `{"n":1}`)
	require.Equal(t, 1, third.event().Body.N)
}

// Who sends too much is refused, and cut off when it does not stop.
func TestFlood(t *testing.T) {
	w := start(t, 1, func(c *connect.Config) { c.Rate, c.Burst = 1, 5 })
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	w.allow(l.SessionID, 1, "POST /echo/say")
	c.manifest()
	const calls = 20 // so many that some are refused, also where it takes seconds to send them
	for n := range calls {
		c.send(fmt.Sprintf(`{"id":%d,"path":"/echo/say"}`, n))
	}
	statuses := map[string]int{}
	for range calls {
		statuses[string(c.read("status")["status"])]++
	}
	require.Positive(t, statuses["429"])
	require.GreaterOrEqual(t, statuses["200"], 5)
	for range 100 {
		if c.WriteMessage(websocket.TextMessage, []byte(`{"ack":999}`)) != nil { // which acknowledges nothing
			break
		}
	}
	require.Equal(t, connect.ClosePolicy, c.closed())
}

// A client that does not read what it is sent is cut off, and what it was sent waits for it.
func TestSlowClient(t *testing.T) {
	w := start(t, 1, func(c *connect.Config) { c.WriteTimeout = 100 * time.Millisecond })
	patient := w.add()
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	const many = 30 // of 256 KiB, which is more than sockets hold that nobody reads
	require.NoError(t, c.NetConn().(*net.TCPConn).SetReadBuffer(4096))
	body := `{"n":1,"fill":"` + strings.Repeat("a", 256<<10) + `"}`
	for range many {
		w.publish(l.SessionID, "news", body)
	}
	back := w.reconnected(patient, c)
	for n := range many {
		require.Equal(t, 1, back.event().Body.N, "event %d", n)
	}
}

// reconnected connects again when the node has noticed that the connection is gone.
func (w *world) reconnected(n *gateway, c *conn) *conn {
	w.t.Helper()
	for gone := false; !gone; {
		_, gone = w.next().(*events.SessionDisconnectedEvent)
	}
	back, status := w.dial(n, "Reconnect "+c.Hello.ReconnectToken)
	require.Equal(w.t, 101, status)
	return back
}

// A client that answers no ping is cut off, and so is one that acknowledges nothing.
func TestSilentClients(t *testing.T) {
	t.Run("no pong", func(t *testing.T) {
		w := start(t, 1, func(c *connect.Config) { c.PingInterval = 100 * time.Millisecond })
		token, _ := w.login("user")
		c := w.connected(w.nodes[0], token)
		c.SetPingHandler(func(string) error { return nil })
		require.Equal(t, connect.CloseUnanswered, c.closed())
	})
	t.Run("no acknowledgement", func(t *testing.T) {
		w := start(t, 0)
		strict, patient := w.add(func(c *connect.Config) { c.AckTimeout = 200 * time.Millisecond }), w.add()
		token, l := w.login("user")
		c := w.connected(strict, token)
		w.publish(l.SessionID, "news", `{"n":1}`)
		require.Equal(t, connect.CloseUnanswered, c.closed())
		v, status := w.dial(patient, "Reconnect "+c.Hello.ReconnectToken, "?ack=auto")
		require.Equal(t, 101, status)
		require.Equal(t, 1, v.event().Body.N)
		w.publish(l.SessionID, "news", `{"n":2}`)
		require.Equal(t, 2, v.event().Body.N)
		require.NoError(t, v.Close())
		back, status := w.dial(patient, "Reconnect "+v.Hello.ReconnectToken, "?ack=auto") // lest it be cut off before the next comes
		require.Equal(t, 101, status)
		w.publish(l.SessionID, "news", `{"n":3}`)
		next := back.event().Body.N
		if next == 2 { // the connection ended before the node knew that it was written
			next = back.event().Body.N
		}
		require.Equal(t, 3, next, "what was written counted as received")
	})
}

// Calls of a channel are made one after another; those of others, and of channel 0, side by side. All of them are bounded.
func TestChannels(t *testing.T) {
	w := start(t, 1, func(c *connect.Config) { c.MaxCalls, c.MaxChannels = 4, 2 })
	began, release := make(chan string, 10), make(chan struct{})
	w.mux.HandleFunc("POST /echo/wait", func(_ http.ResponseWriter, r *http.Request) {
		began <- r.Header.Get(connect.SessionHeader)
		<-release
	})
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	w.allow(l.SessionID, 1, "POST /echo/wait", "POST /echo/say")
	c.manifest()
	c.send(`{"id":1,"channel":1,"path":"/echo/wait"}`)
	c.send(`{"id":2,"channel":1,"path":"/echo/say"}`) // waits
	c.send(`{"id":3,"channel":2,"path":"/echo/wait"}`)
	c.send(`{"id":4,"channel":3,"path":"/echo/say"}`)
	m := c.read("status")
	require.Equal(t, "4", string(m["id"]))
	require.Equal(t, "429", string(m["status"]), "the third channel")
	c.send(`{"id":5,"path":"/echo/say"}`)
	require.Equal(t, "5", string(c.read("status")["id"]), "no channel waits for another")
	c.send(`{"id":6,"path":"/echo/wait"}`)
	c.send(`{"id":7,"path":"/echo/say"}`)
	m = c.read("status")
	require.Equal(t, "7", string(m["id"]))
	require.Equal(t, "429", string(m["status"]), "the fifth call")
	for range 3 {
		<-began
	}
	w.allow(l.SessionID, 2, "POST /echo/wait")
	c.manifest()
	close(release)
	statuses := map[string]string{}
	for range 4 {
		m := c.read("status")
		statuses[string(m["id"])] = string(m["status"])
	}
	require.Equal(t, map[string]string{"1": "200", "2": "403", "3": "200", "6": "200"}, statuses, "what waited was revoked meanwhile")
}

// Who has the answer to a call may make the next one: the one that was answered is not under way any more.
func TestAnAnsweredCallCountsNoMore(t *testing.T) {
	w := start(t, 1, func(c *connect.Config) { c.MaxCalls, c.MaxChannels, c.Rate, c.Burst = 1, 1, 1_000_000, 1_000_000 })
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	w.allow(l.SessionID, 1, "POST /echo/say")
	c.manifest()
	for n := range 300 {
		c.send(fmt.Sprintf(`{"id":%d,"channel":%d,"path":"/echo/say"}`, n, n%3))
		require.Equal(t, "200", string(c.read("status")["status"]), "call %d", n)
	}
}

// A node that drains lets calls come to their end, and sends clients elsewhere.
func TestDrain(t *testing.T) {
	w := start(t, 2)
	began, release := make(chan struct{}), make(chan struct{})
	w.mux.HandleFunc("POST /echo/wait", func(http.ResponseWriter, *http.Request) { close(began); <-release })
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	w.allow(l.SessionID, 1, "POST /echo/wait")
	c.manifest()
	c.send(`{"id":1,"path":"/echo/wait"}`)
	<-began
	stopped := make(chan struct{})
	go func() { defer close(stopped); w.nodes[0].stop() }()
	require.Eventually(t, func() bool {
		token, _ := w.login("user")
		_, response, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(w.nodes[0].url, "http")+"/connect", http.Header{"Authorization": {"Bearer " + token}})
		return err != nil && response != nil && response.StatusCode == http.StatusServiceUnavailable
	}, wait, 5*time.Millisecond, "nobody connects any more")
	close(release)
	require.Equal(t, "200", string(c.read("status")["status"]))
	require.Equal(t, connect.CloseGoingAway, c.closed())
	<-stopped
	back, status := w.dial(w.nodes[1], "Reconnect "+c.Hello.ReconnectToken)
	require.Equal(t, 101, status)
	require.True(t, back.Hello.Resumed)
}

// A node takes so many connections, and no more.
func TestFullNode(t *testing.T) {
	w := start(t, 1, func(c *connect.Config) { c.MaxSessions = 1 })
	token, _ := w.login("user")
	c := w.connected(w.nodes[0], token)
	other, _ := w.login("user")
	_, status := w.dial(w.nodes[0], "Bearer "+other)
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.NoError(t, c.Close())
	require.Eventually(t, func() bool {
		v, status := w.dial(w.nodes[0], "Bearer "+other)
		return v != nil && status == 101
	}, wait, 10*time.Millisecond)
}

// What no reconnection token gives is a session that nobody came back to in time.
func TestTooLate(t *testing.T) {
	w := start(t, 1, func(c *connect.Config) { c.ReconnectWithin = time.Second })
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	require.NoError(t, c.Close())
	for gone := false; !gone; {
		e, is := w.next().(*events.SessionDisconnectedEvent)
		gone = is && !e.Reconnectable
	}
	_, status := w.dial(w.nodes[0], "Reconnect "+c.Hello.ReconnectToken)
	require.Equal(t, 401, status)
	fresh := w.connected(w.nodes[0], token)
	require.False(t, fresh.Hello.Resumed)
	require.Equal(t, l.SessionID, fresh.Hello.SessionID)
}

// The client ends when its session does, and says why.
func TestClientEnds(t *testing.T) {
	w := start(t, 1)
	token, l := w.login("user")
	c, err := client.Dial(t.Context(), client.Config{URLs: []string{w.nodes[0].url}, AccessToken: token})
	require.NoError(t, err)
	w.invalidate(l)
	<-c.Done()
	require.True(t, websocket.IsCloseError(c.Err(), connect.CloseEnded), "%v", c.Err())
	_, err = client.Dial(t.Context(), client.Config{URLs: []string{w.nodes[0].url}, AccessToken: token})
	require.ErrorIs(t, err, client.ErrRefused)
}
