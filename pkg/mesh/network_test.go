package mesh_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// A network carries connections in memory, so that the time of a call can be virtual: in a synctest bubble a time runs out only when nobody
// has anything left to do, and never because the machine has.
type network struct {
	mu    sync.Mutex
	doors map[string]*door
}

// A door is where a network's server takes connections.
type door struct {
	address net.Addr
	conns   chan net.Conn
	closed  chan struct{}
	close   func()
}

func (n *network) listen() *door {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := &door{address: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 3500 + len(n.doors)}, conns: make(chan net.Conn), closed: make(chan struct{})}
	d.close = sync.OnceFunc(func() { close(d.closed) })
	n.doors[d.address.String()] = d
	return d
}

func (n *network) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	d := n.doors[address]
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	if d == nil {
		return nil, refused
	}
	near, far := net.Pipe()
	select {
	case d.conns <- far:
		return near, nil
	case <-d.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case conn := <-d.conns:
		return conn, nil
	case <-d.closed:
		return nil, net.ErrClosed
	}
}

func (d *door) Addr() net.Addr { return d.address }

func (d *door) Close() error {
	d.close()
	return nil
}

// newVirtualWorld is a world without sockets.
func newVirtualWorld(t testing.TB) *world {
	t.Helper()
	w := newWorld(t)
	w.network = &network{doors: map[string]*door{}}
	return w
}

// listen starts a server of the world.
func (w *world) listen(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	if w.network != nil {
		require.NoError(t, s.Listener.Close())
		s.Listener = w.network.listen()
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// transport is what reaches the servers of the world.
func (w *world) transport(t testing.TB) *http.Transport {
	t.Helper()
	transport := mesh.NewTransport()
	if w.network != nil {
		transport.DialContext = w.network.dial
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// caller is a program outside of the mesh.
func (w *world) caller(t testing.TB) *http.Client {
	t.Helper()
	return &http.Client{Transport: w.transport(t)}
}

// waysInTime are the two clients of one handler in virtual time.
func waysInTime(t *testing.T, cfg mesh.ClientConfig, run func(t *testing.T, c *mesh.Client, n *node)) {
	t.Helper()
	t.Run("socket", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, w := newNode(), newVirtualWorld(t)
			w.serve(t, "bannou", "node-1", n, "svc")
			run(t, w.client(t, cfg), n)
		})
	})
	t.Run("direct", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n, w, direct := newNode(), newVirtualWorld(t), cfg
			direct.AppID, direct.InstanceID, direct.Local, direct.LocalServices = "bannou", "node-1", n, []string{"svc"}
			run(t, w.client(t, direct), n)
		})
	})
}
