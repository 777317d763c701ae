package bus_test

import (
	"context"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// relay is a way to a server that can be cut while others reach the server.
type relay struct {
	listener net.Listener
	target   string
	carrying sync.WaitGroup
	watch    func(request bool, data []byte) (pass int, cut bool) // nil: all passes

	mu   sync.Mutex
	down bool
	open map[net.Conn]struct{}
}

// newRelay returns a relay to the server of a URL, and the URL through it. watch sees what passes, from several
// goroutines, and says how many bytes of it may pass, and whether the connection is to be cut after them.
func newRelay(t testing.TB, to string, watch func(request bool, data []byte) (pass int, cut bool)) (*relay, string) {
	t.Helper()
	u, err := url.Parse(to)
	require.NoError(t, err)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{listener: listener, target: u.Host, watch: watch, open: make(map[net.Conn]struct{})}
	r.carrying.Go(r.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		r.cut()
		r.carrying.Wait()
	})
	u.Host = listener.Addr().String()
	return r, u.String()
}

// cut ends all connections, and takes no more until mend.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = true
	for c := range r.open {
		_ = c.Close()
	}
}

func (r *relay) mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = false
}

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := new(net.Dialer).DialContext(context.Background(), "tcp", r.target)
		if err != nil || !r.keep(client, server) {
			_ = client.Close()
			if err == nil {
				_ = server.Close()
			}
			continue
		}
		r.carrying.Go(func() { r.carry(client, server, true) })
		r.carrying.Go(func() { r.carry(server, client, false) })
	}
}

func (r *relay) keep(client, server net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return false
	}
	r.open[client], r.open[server] = struct{}{}, struct{}{}
	return true
}

func (r *relay) carry(from, to net.Conn, request bool) {
	defer func() {
		_, _ = from.Close(), to.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, from)
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		pass, cut := n, false
		if r.watch != nil && n > 0 {
			pass, cut = r.watch(request, buffer[:n])
		}
		if _, failed := to.Write(buffer[:pass]); err != nil || failed != nil || cut {
			return
		}
	}
}
