package mesh_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// The directory has an instance that died, and another app-id's serves at its address. Its handler sees nothing of the calls; they reach
// the instance that is left, also those that must not be made twice, and the wrong one is left out before long.
func TestAnotherAppAtTheAddress(t *testing.T) {
	var wrong, right atomic.Int64
	count := func(appID string, n *atomic.Int64) *httptest.Server {
		server := httptest.NewServer(mesh.Addressed(appID, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			n.Add(1)
			_, _ = w.Write([]byte("{}"))
		})))
		t.Cleanup(server.Close)
		return server
	}
	w := newWorld(t)
	for i, server := range []*httptest.Server{count("beta", &wrong), count("alpha", &right)} {
		e := endpoint("alpha", "node-"+strconv.Itoa(i))
		u, err := url.Parse(server.URL)
		require.NoError(t, err)
		e.Host = u.Hostname()
		e.Port, err = strconv.Atoi(u.Port())
		require.NoError(t, err)
		w.register(t, e)
	}
	client, err := mesh.NewClient(mesh.ClientConfig{Directory: w.directory, Balancer: mesh.RoundRobin()})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	const calls = 20
	for range calls {
		_, err := mesh.Invoke[struct{}, struct{}](t.Context(), client, "alpha", "orders/place", struct{}{})
		require.NoError(t, err)
	}
	require.Zero(t, wrong.Load())
	require.EqualValues(t, calls, right.Load())
	states := client.Targets()[0].Instances
	require.NotZero(t, states[0].EjectedFor, "it is an outlier")
	require.Less(t, states[0].Picks, uint64(calls)/2)
}

// A body that cannot be made again cannot be sent again; the caller is told.
func TestMisdirectedBodyIsNotLost(t *testing.T) {
	server := httptest.NewServer(mesh.Addressed("beta", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was handled") })))
	t.Cleanup(server.Close)
	w := newWorld(t)
	e := endpoint("alpha", "node-0")
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	e.Host = u.Hostname()
	e.Port, err = strconv.Atoi(u.Port())
	require.NoError(t, err)
	w.register(t, e)
	client, err := mesh.NewClient(mesh.ClientConfig{Directory: w.directory})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	req, err := http.NewRequest(http.MethodPost, "/orders/place", http.NoBody)
	require.NoError(t, err)
	req.Body = io.NopCloser(strings.NewReader("one"))
	resp, err := client.Do(t.Context(), "alpha", req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusMisdirectedRequest, resp.StatusCode)
}
