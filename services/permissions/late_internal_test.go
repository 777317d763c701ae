package permissions

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

// What was registered before what counts, and comes after it, changes nothing, and is told to who reads the log: it neither replaces what was sent
// again since, nor brings back a service that was removed.
func TestARegistrationThatComesLate(t *testing.T) {
	began := time.Now()
	now := began.Add(time.Hour)
	l := listen(t, memorybus.New(memorybus.Config{}), memorystate.New(), func() time.Time { return now })
	var log bytes.Buffer
	l.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	register := func(path string, at time.Time) {
		_, err := l.register(t.Context(), "game", registration{At: at, Endpoints: []events.PermissionsEndpoint{{Method: "POST", Path: path}}})
		require.NoError(t, err)
	}
	is := func(path string) catalogue {
		t.Helper()
		c, _, err := l.catalogue(t.Context())
		require.NoError(t, err)
		if r, known := c.Services["game"]; path != "" || known {
			require.True(t, known)
			require.Equal(t, path, r.Endpoints[0].Path)
		}
		return c
	}
	register("/a", began)
	version := is("/a").Version
	register("/a", began.Add(2*time.Second))
	register("/a", began.Add(time.Second))
	require.Empty(t, log.String())
	register("/b", began.Add(time.Second))
	require.Equal(t, version, is("/a").Version, "nobody has to be told anything")
	require.Contains(t, log.String(), "level=WARN")
	register("/b", began.Add(3*time.Second))
	is("/b")

	removed, err := l.remove(t.Context(), "game")
	require.NoError(t, err)
	require.True(t, removed)
	register("/b", began.Add(4*time.Second))
	is("")
	now = now.Add(time.Second)
	register("/b", now)
	require.Empty(t, is("/b").Removed)

	removed, err = l.remove(t.Context(), "game")
	require.NoError(t, err)
	require.True(t, removed)
	now = now.Add(25 * time.Hour)
	_, err = l.register(t.Context(), "other", registration{At: now, Endpoints: []events.PermissionsEndpoint{}})
	require.NoError(t, err)
	require.Empty(t, is("").Removed, "that is not remembered for ever")
}

// A state that was entered before the session's client was given up, and is told after that, is none, also where the session was in no state then.
func TestAStateThatComesAfterTheClientWasGivenUp(t *testing.T) {
	l := listen(t, memorybus.New(memorybus.Config{}), memorystate.New(), time.Now)
	id, began := uuid.NewString(), time.Now().Add(-time.Hour)
	at := func(seconds int) events.Base {
		return events.Base{Timestamp: began.Add(time.Duration(seconds) * time.Second)}
	}
	store, err := state.Open[entry](t.Context(), l.cfg.Factory, SessionStore)
	require.NoError(t, err)
	enters := func(seconds int) string {
		require.NoError(t, l.stateChanged(t.Context(), &events.SessionStateChangeEvent{Base: at(seconds), SessionID: id, ServiceName: "game", NewState: "joined"}))
		e, err := store.Get(t.Context(), sessionKey(id))
		require.NoError(t, err)
		return e.States["game"].Name
	}
	for _, gone := range []int{2, 1} { // one comes late too
		require.NoError(t, l.disconnected(t.Context(), &events.SessionDisconnectedEvent{Base: at(gone), SessionID: id}))
	}
	require.Empty(t, enters(1))
	require.Equal(t, "joined", enters(3))
	require.NoError(t, l.disconnected(t.Context(), &events.SessionDisconnectedEvent{Base: at(2), SessionID: id}))
	require.Equal(t, "joined", enters(3))
}
