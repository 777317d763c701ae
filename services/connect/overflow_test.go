package connect_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/connect"
)

// A client for which more waits than is kept is cut off with a reason, wherever it is connected, and others are told. What it shows before is
// not enough to come back, since it would not know that it has missed something; with an access token it begins anew.
func TestMoreWaitsThanIsKept(t *testing.T) {
	const most = 10
	for name, limit := range map[string]func(*connect.Config){
		"events": func(c *connect.Config) { c.MaxWaitingEvents = most },
		"bytes":  func(c *connect.Config) { c.MaxWaitingBytes = most*1000 + 999 },
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, 2, limit, func(c *connect.Config) { c.Window = 2 })
			filler := strings.Repeat("x", 1000-len(`{"n":10,"":""}`))
			body := func(n int) string { return fmt.Sprintf(`{"n":%02d,"":%q}`, n+10, filler) }
			tell := func(id string, events int) {
				for n := range events {
					w.publish(id, "news", body(n))
				}
			}
			token, l := w.login("user")
			c := w.connected(w.nodes[0], token)
			require.IsType(t, new(events.SessionConnectedEvent), w.next())
			tell(l.SessionID, 2+most) // two are on their way
			for n := range 2 {
				require.Equal(t, n+10, c.event().Body.N)
			}
			c.send(`{"ack":2}`)
			for n := 2; n < 2+most; n++ {
				e := c.event()
				require.Equal(t, n+10, e.Body.N, "as many may wait")
				c.send(fmt.Sprintf(`{"ack":%d}`, e.Seq))
			}
			tell(l.SessionID, 2*most)
			require.Equal(t, connect.CloseOverflow, c.closed())
			gone := w.next().(*events.SessionDisconnectedEvent)
			require.Equal(t, events.SessionDisconnectedReasonOverflow, gone.Reason)
			require.Equal(t, c.Hello.InstanceID, gone.InstanceID)
			require.False(t, gone.Reconnectable)

			_, status := w.dial(w.nodes[1], "Reconnect "+c.Hello.ReconnectToken)
			require.Equal(t, 401, status)
			c = w.connected(w.nodes[1], token)
			require.False(t, c.Hello.Resumed, "the client knows that it begins anew")
			require.IsType(t, new(events.SessionConnectedEvent), w.next())
			w.publish(l.SessionID, "news", body(89))
			require.Equal(t, 99, c.event().Body.N, "what waited before is gone")

			require.NoError(t, c.Close()) // and while it is away
			require.True(t, w.next().(*events.SessionDisconnectedEvent).Reconnectable)
			tell(l.SessionID, most+1) // beside the one that was not acknowledged
			require.False(t, w.next().(*events.SessionDisconnectedEvent).Reconnectable)
			_, status = w.dial(w.nodes[1], "Reconnect "+c.Hello.ReconnectToken)
			require.Equal(t, 401, status)
			require.Empty(t, w.told, "it is told once")
		})
	}
}

// A queue that a node with other limits has made does not keep its client out.
func TestOtherLimits(t *testing.T) {
	w := start(t, 1)
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	require.IsType(t, new(events.SessionConnectedEvent), w.next())
	require.NoError(t, c.Close())
	require.True(t, w.next().(*events.SessionDisconnectedEvent).Reconnectable)
	other := w.add(func(c *connect.Config) { c.MaxWaitingEvents = 7 })
	c, status := w.dial(other, "Reconnect "+c.Hello.ReconnectToken)
	require.Equal(t, 101, status)
	w.publish(l.SessionID, "news", `{"n":1}`)
	require.Equal(t, 1, c.event().Body.N)
}

// dropped is the broker, which tells that it has dropped an event of a queue.
func (w *world) dropped(queue string) {
	require.NoError(w.t, w.broker.Redeliver(w.t.Context(), "connect.overflow", &bus.Message{Timestamp: time.Now(), Headers: map[string]string{
		bus.HeaderOverflowQueue: queue, bus.HeaderOverflowReason: bus.OverflowReason,
	}}))
}

// The broker tells of each event that it has dropped. What it has told of a queue that is gone, and comes when the client has begun anew, does
// not cost the client what it got since.
func TestAnOverflowThatIsOverIsHeardOfLate(t *testing.T) {
	w := start(t, 1)
	token, l := w.login("user")
	other, behind := w.login("user")
	c := w.connected(w.nodes[0], token)
	require.IsType(t, new(events.SessionConnectedEvent), w.next())
	w.dropped("session." + l.SessionID)
	require.Equal(t, connect.CloseOverflow, c.closed())
	require.IsType(t, new(events.SessionDisconnectedEvent), w.next())
	c = w.connected(w.nodes[0], token)
	require.False(t, c.Hello.Resumed)
	require.IsType(t, new(events.SessionConnectedEvent), w.next())
	cb := w.connected(w.nodes[0], other)
	require.IsType(t, new(events.SessionConnectedEvent), w.next())
	w.dropped("session." + l.SessionID)
	w.dropped("session." + behind.SessionID)
	require.Equal(t, connect.CloseOverflow, cb.closed(), "which comes after the one before")
	require.Equal(t, behind.SessionID, w.next().(*events.SessionDisconnectedEvent).SessionID)
	w.publish(l.SessionID, "news", `{"n":1}`)
	require.Equal(t, 1, c.event().Body.N)

	for _, none := range []string{"session." + l.SessionID + ".0", "session." + l.SessionID + ".x", "session." + l.SessionID + ".2", "session.", "other"} {
		w.dropped(none)
	}
	w.dropped("session." + l.SessionID + ".1")
	require.Equal(t, connect.CloseOverflow, c.closed(), "that of the new queue counts")
	require.Equal(t, l.SessionID, w.next().(*events.SessionDisconnectedEvent).SessionID)
}

// redeclared is a broker that makes a session's queue again when it was removed under its reader, as RabbitMQ's client does when it comes back.
type redeclared struct {
	bus.Driver
	once *sync.Once
}

func (r redeclared) DeleteQueue(ctx context.Context, name string) error {
	err := r.Driver.DeleteQueue(ctx, name)
	if strings.HasPrefix(name, "session.") {
		r.once.Do(func() {
			again, declared := r.Subscribe(ctx, bus.Queue{Name: name, Durable: true, Prefetch: 1, Bindings: []bus.Binding{{Pattern: name + ".*"}}})
			if err = errors.Join(err, declared); err == nil {
				err = again.Close(ctx)
			}
		})
	}
	return err
}

// The queue of a session that has begun anew is gone when the connection that read it has ended, also where it came back meanwhile.
func TestNothingIsLeftOfAQueueThatIsGivenUp(t *testing.T) {
	w := start(t, 1, func(c *connect.Config) { c.Broker = redeclared{c.Broker, new(sync.Once)} })
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	w.dropped("session." + l.SessionID)
	require.Equal(t, connect.CloseOverflow, c.closed())
	require.Eventually(t, func() bool {
		queues, err := w.broker.Queues(t.Context())
		return err == nil && !slices.ContainsFunc(queues, func(q bus.QueueInfo) bool { return q.Name == "session."+l.SessionID })
	}, wait, time.Millisecond)
}
