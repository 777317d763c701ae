package connect_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
)

// allowMany has the permissions service say what several sessions may call.
func (w *world) allowMany(endpoint string, sessions ...events.SessionVersion) {
	_, err := w.bus.Publish(w.t.Context(), events.TopicPermissionsCapabilitiesChanged, &events.CapabilitiesChangedEvent{
		Sessions: sessions, Capabilities: map[string][]string{"echo": {endpoint}},
	})
	require.NoError(w.t, err)
}

// What several sessions may call comes to each by one event; that of its own with the same version, which follows, is no news.
func TestManifestsOfMany(t *testing.T) {
	w := start(t, 1)
	first, a := w.login("user")
	second, b := w.login("user")
	ca, cb := w.connected(w.nodes[0], first), w.connected(w.nodes[0], second)
	w.allowMany("POST /echo/say", events.SessionVersion{SessionID: a.SessionID, Version: 3}, events.SessionVersion{SessionID: b.SessionID, Version: 5})
	version, list := ca.manifest()
	require.Equal(t, int64(3), version)
	require.Len(t, list, 1)
	version, other := cb.manifest()
	require.Equal(t, int64(5), version)
	require.Len(t, other, 1)
	require.NotEqual(t, list[0].GUID, other[0].GUID, "ids are of one session each")

	w.allow(a.SessionID, 3, "POST /echo/say")
	w.allow(b.SessionID, 5, "POST /echo/say")
	w.allowMany("POST /echo/who", events.SessionVersion{SessionID: a.SessionID, Version: 2}, events.SessionVersion{SessionID: b.SessionID, Version: 6})
	version, list = cb.manifest()
	require.Equal(t, int64(6), version, "the one before was known")
	require.Equal(t, "/echo/who", list[0].Path)
	ca.send(`{"id":1,"path":"/echo/say","body":{}}`)
	require.JSONEq(t, `200`, string(ca.read("id")["status"]), "an older version changes nothing")
}

// A session that has ended, and whose client stays connected, is allowed nothing more, also by what was on its way when it ended.
func TestWhatComesLateAllowsAnEndedSessionNothing(t *testing.T) {
	w := start(t, 1)
	first, ends := w.login("user")
	second, stays := w.login("user")
	c, other := w.connected(w.nodes[0], first), w.connected(w.nodes[0], second)
	w.allow(ends.SessionID, 1, "POST /echo/say")
	c.manifest()
	_, err := w.bus.Publish(t.Context(), events.TopicSessionInvalidated, &events.SessionInvalidatedEvent{
		AccountID: ends.AccountID, SessionIDs: []string{ends.SessionID}, Reason: events.SessionInvalidatedReasonLogout,
	})
	require.NoError(t, err)
	status := func() string {
		c.send(`{"id":1,"path":"/echo/say","body":{}}`)
		return string(c.read("id")["status"])
	}
	require.Eventually(t, func() bool { return status() == `403` }, wait, 50*time.Millisecond) // below the rate
	w.allowMany("POST /echo/say", events.SessionVersion{SessionID: ends.SessionID, Version: 2}, events.SessionVersion{SessionID: stays.SessionID, Version: 2})
	other.manifest() // and so the one before in the list was looked at
	require.Equal(t, `403`, status())
}
