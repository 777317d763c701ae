package connect_test

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/connect"
)

// unready is a broker that has no queue for a session while it is told so.
type unready struct {
	bus.Driver
	refuses *atomic.Bool
}

func (u unready) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	if q.Expires > 0 && q.Overflow != "" && u.refuses.Load() {
		return nil, errors.Join(bus.ErrUnavailable, errors.New("the test says so"))
	}
	return u.Driver.Subscribe(ctx, q)
}

// A handshake that fails when the session's connection before was closed for it: others are told that the session has none now, and, when its
// client does not come back, that it will not.
func TestAHandshakeFailsAfterTheConnectionBeforeWasClosed(t *testing.T) {
	for name, nodes := range map[string]int{"on the same node": 1, "on another": 2} {
		t.Run(name, func(t *testing.T) {
			var refuses atomic.Bool
			w := start(t, nodes, func(c *connect.Config) {
				c.Broker = unready{c.Broker, &refuses}
			})
			token, l := w.login("user")
			c := w.connected(w.nodes[0], token)
			require.IsType(t, new(events.SessionConnectedEvent), w.next())
			refuses.Store(true)
			_, status := w.dial(w.nodes[nodes-1], "Bearer "+token)
			require.Equal(t, http.StatusServiceUnavailable, status)
			gone := w.next().(*events.SessionDisconnectedEvent)
			require.Equal(t, l.SessionID, gone.SessionID)
			require.Equal(t, l.AccountID, gone.AccountID)
			require.True(t, gone.Reconnectable)
			if nodes == 2 { // else it hears of it when it next renews the record
				_, err := w.bus.Publish(t.Context(), events.TopicSessionReconnected, &events.SessionReconnectedEvent{SessionID: l.SessionID, InstanceID: "another"})
				require.NoError(t, err)
				require.IsType(t, new(events.SessionReconnectedEvent), w.next())
			}
			require.Equal(t, connect.CloseReplaced, c.closed())
			w.forget(l.SessionID) // as the store does in time
			w.nodes[nodes-1].service.GiveUpAll(t.Context())
			gone = w.next().(*events.SessionDisconnectedEvent)
			require.False(t, gone.Reconnectable, "nobody came back in time")
			require.Empty(t, w.told)
		})
	}
}

// Where there was no connection before, there is nothing to tell of.
func TestAFirstHandshakeFails(t *testing.T) {
	var refuses atomic.Bool
	w := start(t, 1, func(c *connect.Config) { c.Broker = unready{c.Broker, &refuses} })
	token, _ := w.login("user")
	refuses.Store(true)
	_, status := w.dial(w.nodes[0], "Bearer "+token)
	require.Equal(t, http.StatusServiceUnavailable, status)
	refuses.Store(false)
	w.connected(w.nodes[0], token)
	require.IsType(t, new(events.SessionConnectedEvent), w.next(), "that of the second try is the first that is told")
}

// remade is a broker that has a session's queue with other limits, and is away when it is to be made anew.
type remade struct {
	bus.Driver
	refuses *atomic.Bool
}

func (r remade) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	if r.refuses.Load() && q.Expires > 0 && q.Overflow != "" {
		return nil, errors.Join(bus.ErrInvalid, errors.New("the queue has other limits"))
	}
	return r.Driver.Subscribe(ctx, q)
}

// A handshake that fails when the session's queue was given up for it: others are told that the session does not wait for its client.
func TestAHandshakeFailsAfterTheQueueWasGivenUp(t *testing.T) {
	var refuses atomic.Bool
	w := start(t, 1, func(c *connect.Config) { c.Broker = remade{c.Broker, &refuses} })
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	require.IsType(t, new(events.SessionConnectedEvent), w.next())
	refuses.Store(true)
	_, status := w.dial(w.nodes[0], "Bearer "+token)
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, connect.CloseReplaced, c.closed())
	gone := w.next().(*events.SessionDisconnectedEvent)
	require.Equal(t, l.SessionID, gone.SessionID)
	require.False(t, gone.Reconnectable)
	refuses.Store(false)
	require.False(t, w.connected(w.nodes[0], token).Hello.Resumed)
	require.IsType(t, new(events.SessionConnectedEvent), w.next())
	require.Empty(t, w.told)
}
