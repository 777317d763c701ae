package connect_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/connect"
)

// breaking is a mesh in which no call succeeds.
type breaking struct{ err error }

func (b breaking) Do(context.Context, string, *http.Request) (*http.Response, error) {
	return nil, b.err
}

// A client learns whether it may send a call again: unavailable is what was not done, for sure.
func TestCodesTellWhetherItWasDone(t *testing.T) {
	for err, want := range map[error]connect.Code{
		errors.New("EOF"): connect.CodeTimeout, mesh.ErrNoEndpoint: connect.CodeUnavailable, mesh.ErrCircuitOpen: connect.CodeUnavailable,
	} {
		w := start(t, 1, func(c *connect.Config) { c.Caller = breaking{err} })
		token, l := w.login("user")
		c := w.connected(w.nodes[0], token)
		w.allow(l.SessionID, 1, "POST /echo/say")
		_, list := c.manifest()
		r := connect.Request{Endpoint: uuid.MustParse(list[0].GUID), MessageID: 1}
		require.NoError(t, c.WriteMessage(websocket.BinaryMessage, r.Append(nil)))
		require.Equal(t, want, c.readBinary().Code, err)
	}
}

// Answers that are large together are sent one after another, to a client that reads.
func TestLargeAnswersAtOnce(t *testing.T) {
	const calls = 8
	w := start(t, 1, func(c *connect.Config) { c.MaxOutgoingBytes = 64 << 10 })
	var together sync.WaitGroup
	together.Add(calls)
	w.mux.HandleFunc("POST /echo/much", func(rw http.ResponseWriter, _ *http.Request) {
		together.Done()
		together.Wait()
		_, _ = rw.Write(make([]byte, 512<<10))
	})
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	w.allow(l.SessionID, 1, "POST /echo/much")
	_, list := c.manifest()
	r := connect.Request{Endpoint: uuid.MustParse(list[0].GUID)}
	for range calls {
		require.NoError(t, c.WriteMessage(websocket.BinaryMessage, r.Append(nil)))
	}
	for range calls {
		require.Len(t, c.readBinary().Payload, 512<<10)
	}
}

// An event whose names are no UTF-8 comes, with what can be read of them.
func TestEventsOfNoUTF8(t *testing.T) {
	w := start(t, 1)
	token, l := w.login("user")
	c := w.connected(w.nodes[0], token)
	require.NoError(t, w.broker.Publish(t.Context(), &bus.Message{RoutingKey: "session." + l.SessionID + ".news", ID: "a\xff", Type: "\xff", Body: []byte(`{"n":1}`)}))
	e := c.event()
	require.Equal(t, "a\ufffd", e.ID)
	require.Equal(t, 1, e.Body.N)
}
