package connect_test

import (
	"fmt"
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

// A person with a text client calls what the manifest has, and nothing else; revocation holds for the next call.
func TestTextCalls(t *testing.T) {
	w := start(t, 1)
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	require.Equal(t, l.SessionID, c.Hello.SessionID)
	require.False(t, c.Hello.Resumed)
	require.Equal(t, l.SessionID, w.next().(*events.SessionConnectedEvent).SessionID)

	c.send(`{"id":1,"path":"/echo/say","body":{"a":1}}`)
	require.JSONEq(t, "403", string(c.read("status")["status"]), "nothing may be called before the manifest came")

	w.allow(l.SessionID, 5, "POST /echo/say", "POST /echo/who")
	_, list := c.manifest()
	require.Len(t, list, 2)
	c.send(`{"id":"x","path":"/echo/say","body":{"a":12345678901234567890.10}}`)
	m := c.read("id")
	require.Equal(t, `"x"`, string(m["id"]))
	require.Equal(t, "200", string(m["status"]))
	require.Equal(t, `{"a":12345678901234567890.10}`, string(m["body"]), "to the digit")

	w.allow(l.SessionID, 4, "POST /echo/say") // late
	w.allow(l.SessionID, 6, "POST /echo/who")
	version, list := c.manifest()
	require.EqualValues(t, 6, version)
	require.Len(t, list, 1)
	c.send(`{"id":3,"path":"/echo/say"}`)
	m = c.read("status")
	require.Equal(t, "403", string(m["status"]))
	require.Equal(t, `"forbidden"`, string(m["code"]))
}

// A program calls by binary frames, with the ids of its manifest.
func TestBinaryCalls(t *testing.T) {
	w := start(t, 1)
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	w.allow(l.SessionID, 1, "POST /echo/say")
	_, list := c.manifest()
	r := connect.Request{Flags: connect.FlagBinary, Channel: 7, Sequence: 9, Endpoint: uuid.MustParse(list[0].GUID), MessageID: 1 << 60, Payload: []byte{0, 255, 3}}
	require.NoError(t, c.WriteMessage(websocket.BinaryMessage, r.Append(nil)))
	answer := c.readBinary()
	require.Equal(t, connect.Response{Flags: connect.FlagBinary, Channel: 7, Sequence: 9, MessageID: 1 << 60, Payload: []byte{0, 255, 3}}, answer)

	r.Endpoint = uuid.New()
	require.NoError(t, c.WriteMessage(websocket.BinaryMessage, r.Append(nil)))
	require.Equal(t, connect.CodeForbidden, c.readBinary().Code)
}

// What is published while a client is away, and what it was sent and did not acknowledge, is there when it comes back, to another node too.
func TestNothingIsLostInBetween(t *testing.T) {
	w := start(t, 2)
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	for n := range 3 {
		w.publish(l.SessionID, "news", fmt.Sprintf(`{"n":%d}`, n))
	}
	for n := range 3 {
		e := c.event()
		require.Equal(t, n, e.Body.N)
		require.EqualValues(t, n+1, e.Seq)
		require.Equal(t, "news", e.Name)
	}
	c.send(`{"ack":1}`) // and not the other two
	require.IsType(t, new(events.SessionConnectedEvent), w.next())
	require.NoError(t, c.Close())
	gone := w.next().(*events.SessionDisconnectedEvent)
	require.True(t, gone.Reconnectable)
	w.publish(l.SessionID, "news", `{"n":3}`)

	back, status := w.dial(w.nodes[1], "Reconnect "+c.Hello.ReconnectToken)
	require.Equal(t, 101, status)
	require.True(t, back.Hello.Resumed)
	for n := 1; n < 4; n++ {
		require.Equal(t, n, back.event().Body.N)
	}
	require.Equal(t, c.Hello.InstanceID, w.next().(*events.SessionReconnectedEvent).PreviousInstanceID)

	_, status = w.dial(w.nodes[0], "Reconnect "+c.Hello.ReconnectToken)
	require.Equal(t, 401, status, "a token is good for one use")
}

// The Go client calls, gets events once, and comes back by itself.
func TestClient(t *testing.T) {
	w := start(t, 2)
	token, l := w.login("user")
	c, err := client.Dial(t.Context(), client.Config{URLs: []string{w.nodes[0].url, w.nodes[1].url}, AccessToken: token})
	require.NoError(t, err)
	defer c.Close()
	w.allow(l.SessionID, 1, "POST /echo/say")
	require.NoError(t, c.WaitFor(t.Context(), "POST", "/echo/say", true))
	answer, err := c.Call(t.Context(), "POST", "/echo/say", []byte(`{"hey":1}`))
	require.NoError(t, err)
	require.Equal(t, `{"hey":1}`, string(answer.Body))
	first := c.InstanceID()
	for n := range 100 {
		w.publish(l.SessionID, "news", fmt.Sprintf(`{"n":%d}`, n))
		if n == 50 {
			w.nodes[0].stop()
		}
	}
	for n := range 100 {
		var body struct{ N int }
		require.NoError(t, json.Unmarshal((<-c.Events()).Body, &body, json.MatchCaseInsensitiveNames(true)))
		require.Equal(t, n, body.N)
	}
	require.NotEqual(t, first, c.InstanceID())
}

// The Go client tells when it has come back to a session that begins anew, before the events that follow, and not when it has missed nothing.
func TestClientThatBeginsAnew(t *testing.T) {
	w := start(t, 2)
	token, l := w.login("user")
	anew, seen := make(chan struct{}, 10), make(chan struct{})
	c, err := client.Dial(t.Context(), client.Config{URLs: []string{w.nodes[0].url, w.nodes[1].url}, AccessToken: token, Anew: func() { anew <- struct{}{}; <-seen }})
	require.NoError(t, err)
	defer c.Close()
	see := sync.OnceFunc(func() { close(seen) })
	defer see() // before Close, which waits for Anew
	require.IsType(t, new(events.SessionConnectedEvent), w.next())
	w.nodes[0].stop()
	for back := false; !back; {
		_, back = w.next().(*events.SessionReconnectedEvent)
	}
	require.Empty(t, anew, "nothing is missed")
	w.dropped("session." + l.SessionID)
	select {
	case <-anew:
	case <-time.After(wait):
		t.Fatal("it is not told")
	}
	w.publish(l.SessionID, "news", `{"n":1}`)
	select {
	case <-c.Events():
		t.Fatal("before it was told")
	default:
	}
	see()
	select {
	case e := <-c.Events():
		require.Equal(t, "news", e.Name)
	case <-time.After(wait):
		t.Fatal("it gets no events")
	}
	require.Empty(t, anew)
}

// A session that has ended is closed at once, with a reason.
func TestSessionEnds(t *testing.T) {
	w := start(t, 1)
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	w.invalidate(l)
	require.Equal(t, connect.CloseEnded, c.closed())
	_, status := w.dial(w.nodes[0], "Reconnect "+c.Hello.ReconnectToken)
	require.Equal(t, 401, status)
	_, status = w.dial(w.nodes[0], "Bearer "+token)
	require.Equal(t, 401, status)
}
