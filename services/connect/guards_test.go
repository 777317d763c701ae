package connect_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/services/connect"
)

// Who shows two tokens does not connect, though each of them holds: what is in front may have looked at the other one.
func TestOneTokenIsShown(t *testing.T) {
	w := start(t, 1)
	token, _ := w.login("user")
	other, _ := w.login("admin")
	for name, header := range map[string]http.Header{
		"two in Authorization":                 {"Authorization": {"Bearer " + token, "Bearer " + other}},
		"two ways":                             {"Authorization": {"Bearer " + token}, "Sec-WebSocket-Protocol": {connect.Subprotocol + ", bannou.access." + other}},
		"two subprotocols":                     {"Sec-WebSocket-Protocol": {connect.Subprotocol + ", bannou.access." + token + ", bannou.access." + other}},
		"an access and a reconnection token":   {"Sec-WebSocket-Protocol": {"bannou.access." + token + ", bannou.reconnect." + other}},
		"the same twice":                       {"Authorization": {"Bearer " + token, "Bearer " + token}},
		"a reconnection token in front of one": {"Authorization": {"Reconnect " + token, "Bearer " + other}},
	} {
		t.Run(name, func(t *testing.T) {
			c, response, err := websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(w.nodes[0].url, "http")+"/connect", header)
			if err == nil {
				_ = c.Close()
			}
			require.Error(t, err)
			require.Equal(t, http.StatusUnauthorized, response.StatusCode)
		})
	}
}

// What one account knows of the ids of a session's endpoints is of no use to another one that auth gives the session to.
func TestAnotherAccountHasOtherIDs(t *testing.T) {
	w := start(t, 1)
	token, l := w.login("user")
	ids := func() string {
		c := w.connected(w.nodes[0], token)
		w.allow(l.SessionID, 1, "POST /echo/say")
		_, list := c.manifest()
		require.Len(t, list, 1)
		require.NoError(t, c.Close())
		return list[0].GUID
	}
	before := ids()
	require.Equal(t, before, ids(), "they stay while the account does")
	other, of := w.login("user")
	of.SessionID = l.SessionID
	w.logins.set(other, of)
	token = other
	require.NotEqual(t, before, ids())
}
