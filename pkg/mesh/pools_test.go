package mesh

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A listed is a source of a directory that says what a test has it say.
type listed []Endpoint

func (l *listed) List(context.Context, bool) ([]Endpoint, error) { return *l, nil }
func (l *listed) Mappings(context.Context) (Mappings, error)     { return Mappings{}, nil }

// What a client keeps by app-id goes with the app-id, its connections too.
func TestAClientForgetsAppIDsThatAreGone(t *testing.T) {
	var open atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
		case http.StateActive, http.StateIdle:
		}
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	address := server.Listener.Addr().(*net.TCPAddr)
	source := new(listed)
	directory := NewDirectory(source, nil, DirectoryConfig{ForgetAfter: -1})
	client, err := NewClient(ClientConfig{Directory: directory, TLS: func(string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true} // whom it is for does not matter here
	}})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	const apps = 20
	for i := range apps {
		appID := fmt.Sprintf("app-%d", i)
		*source = listed{{AppID: appID, InstanceID: "node-1", Host: "127.0.0.1", Port: address.Port, Status: StatusHealthy,
			LastSeen: time.Now().Add(-80 * time.Second)}} // when the next listing lacks it, it is gone
		require.NoError(t, directory.Refresh(t.Context()))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/x", nil)
		require.NoError(t, err)
		resp, err := client.Do(t.Context(), appID, req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	known := len(directory.current.Load().apps)
	require.Less(t, known, apps)
	assert.LessOrEqual(t, len(*client.pools.current.Load()), known)
	assert.LessOrEqual(t, len(client.transport.(*tlsTransport).transports), known)
	targets := map[string]bool{}
	for l := range *client.telemetry.labels.Load() {
		targets[l.target] = true
	}
	assert.LessOrEqual(t, len(targets), known)
	require.Eventually(t, func() bool { return open.Load() <= int64(known) }, 10*time.Second, time.Millisecond, "idle connections are closed")
}
