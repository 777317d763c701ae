package state_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/host"
	statesvc "github.com/bannou-mesh/bannou/services/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is the state service on a host, as a caller sees it.
type node struct {
	t      testing.TB
	url    string
	client *http.Client
	stop   func() // before the test ends
}

// object is a JSON object.
type object = map[string]any

// start runs the service with the stores "accounts" (sqlite), "auth" (memory), "brief" (memory, its keys expire in an
// hour), "watched" (memory, changes published) and "hidden" (internal).
func start(t testing.TB, onChange func(context.Context, state.Changed)) *node {
	t.Helper()
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	factory, err := state.NewFactory([]state.StoreConfig{
		{Name: "accounts", Backend: "sqlite"}, {Name: "auth", Backend: "memory"},
		{Name: "brief", Backend: "memory", DefaultTTL: time.Hour},
		{Name: "watched", Backend: "memory", PublishChanges: true}, {Name: "hidden", Backend: "memory"},
	}, []state.Driver{sqlite, memorystate.New()}, state.Options{OnChange: onChange})
	require.NoError(t, err)
	service, err := statesvc.New(statesvc.Config{Factory: factory, Internal: []string{"hidden"}})
	require.NoError(t, err)
	return serve(t, service, factory.Close)
}

// serve runs a host with a service, and others before it, until the test ends.
func serve(t testing.TB, service host.Service, after func() error, others ...host.Service) *node {
	t.Helper()
	h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	for _, s := range append(others, service) {
		require.NoError(t, h.Add(s))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	select {
	case <-h.Started():
	case err := <-done:
		t.Fatal(err)
	}
	n := &node{t: t, url: "http://" + h.Addr().String(), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	n.stop = sync.OnceFunc(func() {
		n.client.CloseIdleConnections()
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, after())
	})
	t.Cleanup(n.stop)
	return n
}

// post sends a body as it is and returns status, answer and the problem in it.
func (n *node) post(path, body string) (int, string, object) {
	n.t.Helper()
	response, err := n.client.Post(n.url+path, "application/json", bytes.NewReader([]byte(body)))
	require.NoError(n.t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(n.t, err)
	var decoded object
	require.NoError(n.t, json.Unmarshal(answer, &decoded), "%s", answer)
	if response.StatusCode >= 300 {
		require.Equal(n.t, "application/problem+json", response.Header.Get("Content-Type"))
	}
	return response.StatusCode, string(answer), decoded
}

// must posts what has to succeed.
func (n *node) must(path, body string) object {
	n.t.Helper()
	status, answer, decoded := n.post(path, body)
	require.Equal(n.t, 200, status, "%s %s: %s", path, body, answer)
	return decoded
}
