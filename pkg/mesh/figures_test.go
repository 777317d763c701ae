package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// only is the state of the one instance that a client knows.
func only(t testing.TB, c *mesh.Client) mesh.InstanceState {
	t.Helper()
	targets := c.Targets()
	require.Len(t, targets, 1)
	require.Len(t, targets[0].Instances, 1)
	return targets[0].Instances[0]
}

// Whatever becomes of a call, it is counted off once, and only what the instance did speaks against it.
func TestEveryCallIsCountedOff(t *testing.T) {
	const failure = 1.0 / 8
	cases := []struct {
		name    string
		failing float64
		call    func(t *testing.T, c *mesh.Client, n *node)
	}{
		{"success", 0, func(t *testing.T, c *mesh.Client, _ *node) { get(t, c, "app", "/svc/echo") }},
		{"no content", 0, func(t *testing.T, c *mesh.Client, _ *node) { get(t, c, "app", "/svc/status/204") }},
		{"not found", 0, func(t *testing.T, c *mesh.Client, _ *node) { get(t, c, "app", "/svc/status/404") }},
		{"not implemented", 0, func(t *testing.T, c *mesh.Client, _ *node) { get(t, c, "app", "/svc/status/501") }},
		{"server error", failure, func(t *testing.T, c *mesh.Client, _ *node) { get(t, c, "app", "/svc/status/500") }},
		{"overload", failure, func(t *testing.T, c *mesh.Client, _ *node) { get(t, c, "app", "/svc/status/503") }},
		{"cancelled", 0, func(t *testing.T, c *mesh.Client, n *node) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(10*time.Millisecond, cancel)
			_, err := c.Do(ctx, "app", request("GET", "/svc/wait", nil))
			require.ErrorIs(t, err, context.Canceled)
			<-n.ended
		}},
		{"deadline", failure, func(t *testing.T, c *mesh.Client, n *node) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			_, err := c.Do(ctx, "app", request("GET", "/svc/wait", nil))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			<-n.ended
		}},
		{"connection broken before the response", failure, func(t *testing.T, c *mesh.Client, _ *node) {
			_, err := c.Do(t.Context(), "app", request("GET", "/svc/abort", nil))
			require.Error(t, err)
		}},
		{"connection broken in the response", failure, func(t *testing.T, c *mesh.Client, _ *node) {
			resp, err := c.Do(t.Context(), "app", request("GET", "/svc/panic-late", nil))
			require.NoError(t, err)
			assert.Equal(t, 1, only(t, c).InFlight, "until the body is over")
			_, err = io.ReadAll(resp.Body)
			require.Error(t, err)
			assert.Zero(t, only(t, c).InFlight, "its end is enough, and that it is closed too counts once")
			resp.Body.Close()
		}},
		{"stream, given up", 0, func(t *testing.T, c *mesh.Client, n *node) {
			resp, err := c.Do(t.Context(), "app", request("GET", "/svc/flush-wait", nil))
			require.NoError(t, err)
			_, err = io.ReadFull(resp.Body, make([]byte, 5))
			require.NoError(t, err)
			assert.Equal(t, 1, only(t, c).InFlight)
			resp.Body.Close()
			resp.Body.Close()
			<-n.ended
		}},
		{"stream, cancelled", 0, func(t *testing.T, c *mesh.Client, n *node) {
			ctx, cancel := context.WithCancel(t.Context())
			resp, err := c.Do(ctx, "app", request("GET", "/svc/flush-wait", nil))
			require.NoError(t, err)
			cancel()
			_, err = io.ReadAll(resp.Body)
			require.ErrorIs(t, err, context.Canceled)
			assert.Zero(t, only(t, c).InFlight)
			resp.Body.Close()
			<-n.ended
		}},
		{"the caller's body fails", 0, func(t *testing.T, c *mesh.Client, _ *node) {
			_, err := c.Do(t.Context(), "app", request("POST", "/svc/echo", io.NopCloser(brokenReader{})))
			require.Error(t, err)
		}},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := newNode(), newVirtualWorld(t)
				w.serve(t, "app", "node-1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					pass(time.Millisecond)
					n.ServeHTTP(w, r)
				}))
				c := w.client(t, mesh.ClientConfig{Policy: mesh.Policy{Retry: mesh.Retry{Max: -1}}})
				test.call(t, c, n)
				state := only(t, c)
				assert.Equal(t, uint64(1), state.Picks)
				assert.Zero(t, state.InFlight)
				assert.InDelta(t, test.failing, state.FailureShare, 0.001)
				if test.failing == 0 && !strings.Contains(test.name, "cancelled") && test.name != "the caller's body fails" || strings.HasPrefix(test.name, "stream") {
					assert.Positive(t, state.Latency, "its response began")
				} else if test.name != "connection broken in the response" {
					assert.Zero(t, state.Latency, "that it ended early says little")
				}
			})
		})
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

func TestAnUpgradedConnectionIsInFlightWhileItLasts(t *testing.T) {
	w := newWorld(t)
	w.serve(t, "app", "node-1", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, buffer, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(conn, buffer)
	}))
	c := w.client(t, mesh.ClientConfig{})
	front := httptest.NewServer(mesh.NewProxy(c, mesh.ProxyConfig{}))
	defer front.Close()
	conn, err := net.Dial("tcp", front.Listener.Addr().String())
	require.NoError(t, err)
	_, err = io.WriteString(conn, "GET /v1.0/invoke/app/method/x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	require.NoError(t, err)
	head := make([]byte, 12)
	_, err = io.ReadFull(conn, head)
	require.NoError(t, err)
	assert.Equal(t, "HTTP/1.1 101", string(head))
	assert.Equal(t, 1, only(t, c).InFlight)
	conn.Close()
	require.Eventually(t, func() bool { return only(t, c).InFlight == 0 }, 10*time.Second, time.Millisecond)
	assert.Zero(t, only(t, c).FailureShare)
}

func TestAnInstanceThatFailsGetsNoMoreCalls(t *testing.T) {
	w := newWorld(t)
	w.serve(t, "app", "node-a", named("a"))
	w.serve(t, "app", "node-b", named("b"))
	w.serve(t, "app", "node-c", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) }))
	w.register(t, at(endpoint("app", "node-d"), deadAddress))
	c := w.client(t, mesh.ClientConfig{Balancer: mesh.RoundRobin(), Ejection: mesh.Ejection{Time: time.Hour}})
	failures := 0
	for range 100 {
		if get(t, c, "app", "/x") == "no" {
			failures++
		}
	}
	assert.Equal(t, 5, failures)
	for _, in := range c.Targets()[0].Instances {
		if in.InstanceID == "node-c" || in.InstanceID == "node-d" {
			assert.Equal(t, uint64(5), in.Picks, in.InstanceID)
			assert.Greater(t, in.EjectedFor, 50*time.Minute, in.InstanceID)
		} else {
			assert.Greater(t, in.Picks, uint64(40), in.InstanceID)
		}
	}
	require.False(t, c.Targets()[0].Panic)

	_, err := w.registry.Deregister(t.Context(), "app", "node-c")
	require.NoError(t, err)
	assert.Len(t, c.Targets()[0].Instances, 3)
	for _, id := range []string{"node-a", "node-b", "node-d"} {
		_, err := w.registry.Deregister(t.Context(), "app", id)
		require.NoError(t, err)
	}
	assert.Empty(t, c.Targets())
	_, err = c.Route("app")
	require.ErrorIs(t, err, mesh.ErrUnknownTarget)
}

func TestCallsStayInTheZone(t *testing.T) {
	w := newWorld(t)
	for _, zone := range []string{"a", "b"} {
		s := httptest.NewServer(named(zone))
		t.Cleanup(s.Close)
		e := at(endpoint("app", "node-"+zone), s.Listener.Addr().String())
		e.Zone = zone
		w.register(t, e)
	}
	c := w.client(t, mesh.ClientConfig{Zone: "b"})
	for range 20 {
		assert.Equal(t, "b /x", get(t, c, "app", "/x"))
	}
	_, err := w.registry.Deregister(t.Context(), "app", "node-b")
	require.NoError(t, err)
	assert.Equal(t, "a /x", get(t, c, "app", "/x"))
}

// A node calls itself while it can, and others when it has as much to do as it should.
func TestABusyNodeCallsOthers(t *testing.T) {
	w := newWorld(t)
	n := newNode()
	w.register(t, at(endpoint("app", "node-1", "svc"), deadAddress)) // ourselves
	other := w.serve(t, "app", "node-2", named("other"), "svc")
	c := w.client(t, mesh.ClientConfig{AppID: "app", InstanceID: "node-1", Local: n, LocalServices: []string{"svc"}, LocalMaxInFlight: 2})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var held []*http.Response
	for range 2 { // the first calls of all: an answered one counts until its handler has returned, which may be after its answer was read
		resp, err := c.Do(ctx, "app", request("GET", "/svc/flush-wait", nil))
		require.NoError(t, err)
		require.EqualValues(t, -1, resp.ContentLength, "it calls itself, and the answer stays open")
		held = append(held, resp)
	}
	for range 5 {
		assert.Equal(t, "other /svc/path/x", get(t, c, "app", "/svc/path/x"))
	}
	other.Close()
	_, err := w.registry.Deregister(t.Context(), "app", "node-2")
	require.NoError(t, err)
	assert.Equal(t, "/svc/path/x|/svc/path/x|/svc/path/x|HTTP/1.1", get(t, c, "app", "/svc/path/x"), "where nobody else is, it does what it can")
	cancel()
	for _, resp := range held {
		resp.Body.Close()
		<-n.ended
	}
}

// Ten thousand calls at once, a third cancelled half-way, on instances that fail, hang and answer: nothing is left.
func TestManyCallsCancelledHalfWay(t *testing.T) {
	w := newWorld(t)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/fail":
			http.Error(w, "no", http.StatusServiceUnavailable)
		case "/hang":
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			_, _ = io.WriteString(w, "ok")
		}
	})
	for i := range 4 {
		w.serve(t, "app", fmt.Sprintf("node-%d", i), handler)
	}
	calls := 10000
	if testing.Short() {
		calls = 1000
	}
	c := w.client(t, mesh.ClientConfig{})
	var callers sync.WaitGroup
	for caller := range 50 {
		callers.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(caller)))
			for range calls / 50 {
				ctx, cancel := context.WithCancel(context.Background())
				path := []string{"/ok", "/fail", "/hang"}[random.IntN(3)]
				if path == "/hang" || random.IntN(3) == 0 {
					time.AfterFunc(time.Duration(random.IntN(2000))*time.Microsecond, cancel)
				}
				if resp, err := c.Do(ctx, "app", request("GET", path, nil)); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				cancel()
			}
		})
	}
	callers.Wait()
	state := c.Targets()[0]
	assert.GreaterOrEqual(t, state.Picks, uint64(calls))
	for _, in := range state.Instances {
		assert.Zero(t, in.InFlight, in.InstanceID)
	}
}
