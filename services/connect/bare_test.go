package connect_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/connect"
)

// dying is a broker that makes no queue of a session any more, as a node that is killed makes none. With others, the queue is one that has
// other limits, and is removed before.
type dying struct {
	bus.Driver
	dies, others     *atomic.Bool
	reached, release chan struct{}
}

func (d dying) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	if q.Overflow == "" || !d.dies.Load() {
		return d.Driver.Subscribe(ctx, q)
	}
	if d.others.Swap(false) {
		return nil, errors.Join(bus.ErrInvalid, errors.New("the queue has other limits"))
	}
	close(d.reached)
	<-d.release
	return nil, errors.Join(bus.ErrUnavailable, errors.New("the node is dead"))
}

// A node dies when it has taken a session, and has not made its queue: who connects then is not told that it goes on where it was.
func TestANodeDiesBeforeTheQueueStands(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(w *world, token string, l connect.Login, d dying)
	}{
		{"first connection", func(*world, string, connect.Login, dying) {}},
		{"given up", func(w *world, token string, l connect.Login, _ dying) {
			v := w.connected(w.nodes[1], token)
			w.dropped("session." + l.SessionID)
			require.Equal(w.t, connect.CloseOverflow, v.closed())
		}},
		{"other limits", func(w *world, token string, l connect.Login, d dying) {
			v := w.connected(w.nodes[1], token)
			require.IsType(w.t, new(events.SessionConnectedEvent), w.next())
			require.NoError(w.t, v.Close())
			require.IsType(w.t, new(events.SessionDisconnectedEvent), w.next())
			w.publish(l.SessionID, "news", `{"n":1}`)
			d.others.Store(true)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := dying{dies: new(atomic.Bool), others: new(atomic.Bool), reached: make(chan struct{}), release: make(chan struct{})}
			w := start(t, 0)
			w.add(func(c *connect.Config) { d.Driver, c.Broker = c.Broker, &d })
			w.add()
			token, l := w.login("user")
			c.before(w, token, l, d)
			d.dies.Store(true)
			release := sync.OnceFunc(func() { close(d.release) })
			defer release()
			status, first := make(chan int, 1), upgrade(t, w.nodes[0].url, token)
			go func() {
				response, err := http.DefaultClient.Do(first)
				if err != nil {
					status <- 0
					return
				}
				_ = response.Body.Close()
				status <- response.StatusCode
			}()
			select {
			case <-d.reached:
			case s := <-status:
				require.FailNow(t, "the handshake ended before it came to the queue", "%d", s)
			}
			v := w.connected(w.nodes[1], token)
			require.False(t, v.Hello.Resumed)
			release()
			require.Equal(t, http.StatusServiceUnavailable, <-status)
			w.publish(l.SessionID, "news", `{"n":2}`)
			require.Equal(t, 2, v.event().Body.N)
			require.NoError(t, v.Close())
			require.Eventually(t, func() bool { return w.record(l.SessionID)["bare"] == false }, wait, time.Millisecond)
			require.True(t, w.connected(w.nodes[1], token).Hello.Resumed, "from here it goes on")
		})
	}
}

// A store that has lost the record of a connection leaves the session one connection: the newer one.
func TestTheNewerStaysWhereTheRecordWasLost(t *testing.T) {
	w := start(t, 2)
	token, l := w.login("user")
	older := w.connected(w.nodes[0], token)
	require.IsType(t, new(events.SessionConnectedEvent), w.next())
	w.forget(l.SessionID)
	newer := w.connected(w.nodes[1], token)
	require.Equal(t, connect.CloseReplaced, older.closed())
	w.publish(l.SessionID, "news", `{"n":1}`)
	require.Equal(t, 1, newer.event().Body.N)
}
