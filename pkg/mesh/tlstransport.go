package mesh

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// connectTime is how long it may take to connect, the handshake of TLS included.
const connectTime = 3 * time.Second

// An idleCloser is a transport with kept connections.
type idleCloser interface{ CloseIdleConnections() }

// A tlsTransport keeps connections apart by the app-id that they were opened to, since each was verified for that one: an address
// alone does not tell who is there.
type tlsTransport struct {
	plain  *http.Transport // what those of all app-ids are made like
	config func(appID string) *tls.Config

	mu         sync.RWMutex
	transports map[string]*http.Transport // by app-id
}

type calledKey struct{}

// calling says in a request's context which app-id it is for, where that matters to the transport.
func calling(req *http.Request, scheme, appID string) *http.Request {
	if scheme != "https" {
		return req
	}
	return req.WithContext(context.WithValue(req.Context(), calledKey{}, appID))
}

// RoundTrip implements http.RoundTripper.
func (t *tlsTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	appID, _ := req.Context().Value(calledKey{}).(string)
	return t.to(appID).RoundTrip(req)
}

// CloseIdleConnections closes those of all app-ids.
func (t *tlsTransport) CloseIdleConnections() {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, transport := range t.transports {
		transport.CloseIdleConnections()
	}
}

// keep forgets the app-ids that are not to be kept, and closes their idle connections. One that carries a request yet is closed
// when it has been idle for as long as any may be.
func (t *tlsTransport) keep(kept func(appID string) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for appID, transport := range t.transports {
		if !kept(appID) {
			delete(t.transports, appID)
			transport.CloseIdleConnections()
		}
	}
}

func (t *tlsTransport) to(appID string) *http.Transport {
	t.mu.RLock()
	transport := t.transports[appID]
	t.mu.RUnlock()
	if transport != nil {
		return transport
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if transport = t.transports[appID]; transport != nil {
		return transport
	}
	transport = t.plain.Clone()
	// Asked anew for each connection, so that certificates may be replaced.
	transport.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		// net/http goes on with a connection that is begun when its caller has left: ctx does not end with the call.
		ctx, cancel := context.WithTimeout(ctx, connectTime)
		defer cancel()
		conn, err := t.plain.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		secured := tls.Client(conn, t.config(appID))
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, &net.OpError{Op: "dial", Net: network, Addr: conn.RemoteAddr(), Err: err} // nothing was sent
		}
		return secured, nil
	}
	if t.transports == nil {
		t.transports = map[string]*http.Transport{}
	}
	t.transports[appID] = transport
	return transport
}
