package connect_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/connect"
)

// late is a broker of which a node hears nothing by the queue that all nodes share: another node is at it, or has died at it.
type late struct{ bus.Driver }

func (l late) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	if strings.Contains(q.Name, "disconnect-clients") {
		q.Bindings = nil
	}
	return l.Driver.Subscribe(ctx, q)
}

// alone has a gateway hear of what has ended by the queues of its own only.
func (w *world) alone(c *connect.Config) {
	b, err := bus.New(late{w.broker}, bus.Config{AppID: "connect"})
	require.NoError(w.t, err)
	c.Bus = b
}

// A node that hears that a session has ended, and does not hold it, lets nobody connect to it any more, whoever else is late with noting that.
func TestAnEndIsNotedWhereNobodyIsHeld(t *testing.T) {
	w := start(t, 0)
	w.add(w.alone)
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	require.IsType(t, new(events.SessionConnectedEvent), w.next())
	require.NoError(t, c.Close())
	require.IsType(t, new(events.SessionDisconnectedEvent), w.next())
	w.invalidate(l)
	require.Eventually(t, func() bool { return w.record(l.SessionID)["ended"] == true }, wait, time.Millisecond)
	_, status := w.dial(w.nodes[0], "Reconnect "+c.Hello.ReconnectToken)
	require.Equal(t, http.StatusUnauthorized, status)
	_, status = w.dial(w.nodes[0], "Bearer "+token)
	require.Equal(t, http.StatusUnauthorized, status)
}

func (w *world) records() *state.Store[map[string]any] {
	store, err := state.Open[map[string]any](w.t.Context(), w.factory, connect.SessionStore)
	require.NoError(w.t, err)
	return store
}

// record is what the gateways know of a session, nil if nothing.
func (w *world) record(sessionID string) map[string]any {
	v, err := w.records().Get(w.t.Context(), sessionID)
	if err != nil {
		return nil
	}
	return v
}

// forget has the store lose that.
func (w *world) forget(sessionID string) {
	_, err := w.records().Delete(w.t.Context(), sessionID)
	require.NoError(w.t, err)
}
