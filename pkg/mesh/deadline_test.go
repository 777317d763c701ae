package mesh_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

func told(h http.Header) time.Duration {
	ms, err := strconv.Atoi(h.Get("Bannou-Timeout-Ms"))
	if err != nil {
		return -1
	}
	return time.Duration(ms) * time.Millisecond
}

func TestACallTellsHowMuchTimeIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := failing(200)
		client := newFleet(t, 1, mesh.ClientConfig{Timeout: 20 * time.Second,
			Policies: map[string]mesh.Policy{"app": {Retry: mesh.Retry{Delay: time.Second, Constant: true, Max: 1}}}}, f)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		pass(2 * time.Second)
		get(t, client, "app", "/x")
		assert.Equal(t, 20*time.Second, told(f.seen[0].header), "the client's own")
		resp, err := client.Do(ctx, "app", request("GET", "/x", nil))
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, 3*time.Second, told(f.seen[1].header), "what is left, not what there was")

		f.answer = failing(503).answer
		resp, err = client.Do(ctx, "app", request("GET", "/x", nil))
		require.NoError(t, err)
		resp.Body.Close()
		require.Len(t, f.seen, 4)
		assert.Equal(t, 2*time.Second, told(f.seen[3].header), "a further attempt has less")
	})
}

// What a request brought bounds the calls made for it, and is bounded by this client's own limit: a stranger who asks for an
// hour does not get it. What a program sets itself stands.
func TestATimeThatCameWithARequestIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := failing(200)
		client := newFleet(t, 1, mesh.ClientConfig{Timeout: 20 * time.Second}, f)
		through := func(asked string) time.Duration {
			h := mesh.Inbound(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				pass(time.Second)
				resp, err := client.Do(r.Context(), "app", request("GET", "/x", nil))
				if assert.NoError(t, err) {
					resp.Body.Close()
				}
			}))
			req := httptest.NewRequestWithContext(t.Context(), "GET", "/x", nil)
			req.Header.Set("Bannou-Timeout-Ms", asked)
			h.ServeHTTP(httptest.NewRecorder(), req)
			return told(f.seen[len(f.seen)-1].header)
		}
		assert.Equal(t, 9*time.Second, through("10000"))
		assert.Equal(t, 20*time.Second, through("3600000"))
		assert.Equal(t, 20*time.Second, through("soon"))

		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		resp, err := client.Do(ctx, "app", request("GET", "/x", nil))
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, time.Hour, told(f.seen[len(f.seen)-1].header))

		limited := newFleet(t, 1, mesh.ClientConfig{Policy: mesh.Policy{Timeout: 2 * time.Second}}, f)
		resp, err = limited.Do(ctx, "app", request("GET", "/x", nil))
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, 2*time.Second, told(f.seen[len(f.seen)-1].header), "a policy's time bounds whatever the caller allows")
	})
}

// A handler at the end of a chain stops when the first caller's time is up, and the invoke endpoint
// on the way says so.
func TestDeadlinesTravelThroughTheInvokeEndpoint(t *testing.T) {
	synctest.Test(t, testDeadlinesTravelThroughTheInvokeEndpoint)
}

func testDeadlinesTravelThroughTheInvokeEndpoint(t *testing.T) {
	w := newVirtualWorld(t)
	ended, release := make(chan error, 1), make(chan struct{})
	w.serve(t, "last", "node-1", mesh.Inbound(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		deadline, bounded := r.Context().Deadline()
		assert.True(t, bounded)
		assert.Equal(t, 300*time.Millisecond, time.Until(deadline))
		<-r.Context().Done()
		ended <- r.Context().Err()
		<-release // it has no answer
	})))
	gate := w.listen(t, mesh.NewProxy(w.client(t, mesh.ClientConfig{}), mesh.ProxyConfig{}))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, gate.URL+mesh.ProxyPattern+"last/method/x", nil)
	require.NoError(t, err)
	req.Header.Set("Bannou-Timeout-Ms", "300")
	resp, err := w.caller(t).Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	close(release)
	assert.Equal(t, http.StatusGatewayTimeout, resp.StatusCode)
	require.Error(t, <-ended)

	// The same without a socket.
	node := w.client(t, mesh.ClientConfig{AppID: "here", Local: mesh.Inbound(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, bounded := r.Context().Deadline()
		assert.True(t, bounded)
	}))})
	get(t, node, "here", "/x")
}
