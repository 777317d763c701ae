package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

func named(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s", name, r.URL.Path, body)
	})
}

// deadAddress is one where nothing listens, nor will: no system gives out such a port by itself.
const deadAddress = "127.0.0.1:1"

func get(t testing.TB, c *mesh.Client, target, path string) string {
	t.Helper()
	resp, err := c.Do(t.Context(), target, request("GET", path, nil))
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return strings.TrimSpace(string(body))
}

func TestCallsGoWhereTheMappingsSay(t *testing.T) {
	w := newWorld(t)
	w.serve(t, "bannou", "node-1", named("monolith"), "state", "realm")
	w.serve(t, "bannou-world", "node-2", named("world"), "realm")
	c := w.client(t, mesh.ClientConfig{})
	assert.Equal(t, "monolith /realm/list", get(t, c, "realm", "/realm/list"))
	_, err := w.registry.SetMappings(t.Context(), map[string]string{"realm": "bannou-world"}, "")
	require.NoError(t, err)
	assert.Equal(t, "world /realm/list", get(t, c, "realm", "/realm/list"))
	assert.Equal(t, "monolith /state/get", get(t, c, "state", "/state/get"))
	assert.Equal(t, "world /anything", get(t, c, "bannou-world", "/anything"), "an app-id is a target too")
	_, err = w.registry.SetMappings(t.Context(), nil, "")
	require.NoError(t, err)
	assert.Equal(t, "monolith /realm/list", get(t, c, "realm", "/realm/list"), "no mappings: back on bannou")
}

func TestCallsAreSpread(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"a", "b", "c"} {
		w.serve(t, "bannou", "node-"+name, named(name))
	}
	c := w.client(t, mesh.ClientConfig{Balancer: mesh.RoundRobin()})
	seen := map[string]int{}
	for range 30 {
		seen[get(t, c, "bannou", "/x")]++
	}
	assert.Equal(t, map[string]int{"a /x": 10, "b /x": 10, "c /x": 10}, seen)
	routed := map[string]bool{}
	for range 3 {
		e, err := c.Route("bannou")
		require.NoError(t, err)
		routed[e.InstanceID] = true
	}
	assert.Len(t, routed, 3)
	assert.Equal(t, uint64(30), c.Targets()[0].Picks, "to ask for a route is no request")
}

func TestOnlyInstancesThatRunTheServiceAreCalled(t *testing.T) {
	w := newWorld(t)
	w.serve(t, "bannou", "node-1", named("one"), "state")
	w.serve(t, "bannou", "node-2", named("two"), "mesh")
	c := w.client(t, mesh.ClientConfig{})
	for range 4 {
		for range 3 {
			assert.Equal(t, "one /state/get", get(t, c, "state", "/state/get"))
		}
		assert.Equal(t, "two /mesh/list", get(t, c, "bannou", "/mesh/list"))
	}
}

func TestAnInstanceThatCannotBeReachedIsPassedOver(t *testing.T) {
	w := newWorld(t)
	w.register(t, at(endpoint("bannou", "node-a"), deadAddress))
	w.register(t, at(endpoint("bannou", "node-b"), deadAddress))
	w.serve(t, "bannou", "node-c", named("alive"))
	c := w.client(t, mesh.ClientConfig{})
	for range 6 {
		resp, err := c.Do(t.Context(), "bannou", request("POST", "/x", io.NopCloser(strings.NewReader("body"))))
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, "alive /x body", string(body), "the body is whole at the third attempt")
	}
}

func TestNothingIsSentTwice(t *testing.T) {
	w := newWorld(t)
	var calls atomic.Int32
	breaks := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		calls.Add(1)
		panic(http.ErrAbortHandler)
	})
	w.serve(t, "bannou", "node-a", breaks)
	w.serve(t, "bannou", "node-b", breaks)
	c := w.client(t, mesh.ClientConfig{})
	_, err := mesh.Invoke[string, string](t.Context(), c, "bannou", "x", "once")
	require.Error(t, err)
	assert.Equal(t, int32(1), calls.Load())
}

func TestWhenAllAreAwayEachIsTriedAtOnce(t *testing.T) {
	w := newWorld(t)
	var dials atomic.Int32
	transport := mesh.NewTransport()
	transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
		dials.Add(1)
		return nil, &net.OpError{Op: "dial", Err: errors.New("refused")}
	}
	for i := range 3 {
		w.register(t, endpoint("bannou", fmt.Sprintf("node-%d", i)))
	}
	for retries, want := range map[int]int32{-1: 3, 2: 3 + 2, 3: 3} {
		c := w.client(t, mesh.ClientConfig{Transport: transport, Policy: mesh.Policy{Retry: mesh.Retry{Max: retries}}})
		closed := &closing{Reader: strings.NewReader("x"), done: make(chan struct{})}
		dials.Store(0)
		req := request("POST", "/x", closed)
		if retries == 3 {
			req.Header = http.Header{"Bannou-Retries": {"caller"}} // each is tried, and the rest is someone else's
		}
		_, err := c.Do(t.Context(), "bannou", req)
		require.ErrorContains(t, err, "refused")
		<-closed.done
		assert.Equal(t, want, dials.Load(), "nothing was sent, so a POST may be tried again too")
	}
}

func TestTargetsThatAreNotThere(t *testing.T) {
	w := newWorld(t)
	c := w.client(t, mesh.ClientConfig{})
	closed := &closing{Reader: strings.NewReader("x"), done: make(chan struct{})}
	_, err := c.Do(t.Context(), "nothing", request("POST", "/x", closed))
	require.ErrorIs(t, err, mesh.ErrUnknownTarget)
	<-closed.done
	_, err = c.Do(t.Context(), "bannou", request("GET", "/x", nil))
	require.ErrorIs(t, err, mesh.ErrNoEndpoint)
	_, err = c.Route("nothing")
	require.ErrorIs(t, err, mesh.ErrUnknownTarget)
	e := endpoint("orders", "node-1")
	e.Status = mesh.StatusShuttingDown
	w.register(t, e)
	_, err = c.Route("orders")
	require.ErrorIs(t, err, mesh.ErrNoEndpoint)
	_, err = mesh.NewClient(mesh.ClientConfig{})
	require.Error(t, err)
	_, err = mesh.NewClient(mesh.ClientConfig{Directory: w.directory, Local: named("x")})
	require.ErrorContains(t, err, "app-id")
}

func TestAMissAsksTheRegistry(t *testing.T) {
	w := newWorld(t)
	w.feed.Fail(errors.New("broker away"))
	w.serve(t, "orders", "node-1", named("orders")) // not announced
	c := w.client(t, mesh.ClientConfig{})
	assert.Equal(t, "orders /x", get(t, c, "orders", "/x"))
	// Many misses at once cause few reads.
	counted := &countingSource{Source: w.registry}
	d := mesh.NewDirectory(counted, w.feed, mesh.DirectoryConfig{MissInterval: time.Hour})
	missing, err := mesh.NewClient(mesh.ClientConfig{Directory: d})
	require.NoError(t, err)
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			_, err := missing.Do(context.Background(), "nothing", request("GET", "/x", nil))
			assert.ErrorIs(t, err, mesh.ErrUnknownTarget)
		})
	}
	callers.Wait()
	assert.Equal(t, int32(1), counted.reads.Load())
}

type countingSource struct {
	mesh.Source
	reads atomic.Int32
}

func (s *countingSource) List(ctx context.Context, all bool) ([]mesh.Endpoint, error) {
	s.reads.Add(1)
	return s.Source.List(ctx, all)
}

func TestThisNodeIsCalledWithoutASocket(t *testing.T) {
	w := newWorld(t)
	w.register(t, at(endpoint("bannou", "node-1", "state"), deadAddress)) // ourselves: a socket would fail
	w.serve(t, "bannou", "node-2", named("other"), "mesh")
	c := w.client(t, mesh.ClientConfig{AppID: "bannou", InstanceID: "node-1", Local: named("here"), LocalServices: []string{"state"}})
	for range 3 {
		assert.Equal(t, "here /state/get", get(t, c, "state", "/state/get"))
		assert.Equal(t, "here /state/get", get(t, c, "bannou", "/state/get"))
		assert.Equal(t, "here /other/path", get(t, c, "state", "/other/path"))
		assert.Equal(t, "other /mesh/list", get(t, c, "mesh", "/mesh/list"), "a service that runs on another instance")
		assert.Equal(t, "other /mesh/list", get(t, c, "bannou", "/mesh/list"))
	}
	_, err := w.registry.Deregister(t.Context(), "bannou", "node-2")
	require.NoError(t, err)
	assert.Equal(t, "here /mesh/list", get(t, c, "bannou", "/mesh/list"), "nobody else: our own handler says what is not there")
	_, err = c.Do(t.Context(), "mesh", request("GET", "/state/get", nil))
	require.ErrorIs(t, err, mesh.ErrUnknownTarget, "a path does not make a name known")
	_, err = w.registry.SetMappings(t.Context(), map[string]string{"state": "elsewhere"}, "")
	require.NoError(t, err)
	_, err = c.Do(t.Context(), "state", request("GET", "/state/get", nil))
	require.ErrorIs(t, err, mesh.ErrNoEndpoint, "a mapping is stronger than what runs here")
}

type greeting struct {
	Name string `json:"name"`
	Big  int64  `json:"big"`
}

func TestInvoke(t *testing.T) {
	w := newWorld(t)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /svc/echo", func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
		_, _ = io.Copy(w, r.Body)
	})
	mux.HandleFunc("POST /svc/query", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%q", r.URL.RawQuery) })
	mux.HandleFunc("POST /svc/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /svc/text", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "not json") })
	mux.HandleFunc("POST /svc/long", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 2000)) })
	mux.HandleFunc("POST /svc/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("POST /svc/problem", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json; charset=utf-8")
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"type":"about:blank","title":"Conflict","status":409,"code":"etag_mismatch","detail":"key changed"}`)
	})
	mux.HandleFunc("POST /svc/plain", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) })
	w.serve(t, "bannou", "node-1", mux, "svc")
	c := w.client(t, mesh.ClientConfig{MaxResponseBytes: 1000})
	ctx := t.Context()

	want := greeting{Name: "é\"", Big: 1<<53 + 1}
	got, err := mesh.Invoke[greeting, greeting](ctx, c, "svc", "svc/echo", want)
	require.NoError(t, err)
	assert.Equal(t, want, got)
	query, err := mesh.Invoke[struct{}, string](ctx, c, "svc", "/svc/query?a=1&b", struct{}{})
	require.NoError(t, err)
	assert.Equal(t, "a=1&b", query)
	_, err = mesh.Invoke[greeting, struct{}](ctx, c, "svc", "svc/empty", want)
	require.NoError(t, err)
	_, err = mesh.Invoke[greeting, struct{}](ctx, c, "svc", "svc/text", want)
	require.NoError(t, err, "an answer that does not matter")
	_, err = mesh.Invoke[greeting, greeting](ctx, c, "svc", "svc/text", want)
	require.ErrorContains(t, err, "decode")
	for _, method := range []string{"svc/long", "svc/endless"} {
		_, err = mesh.Invoke[greeting, greeting](ctx, c, "svc", method, want)
		require.ErrorIs(t, err, mesh.ErrTooLarge, method)
	}
	for _, method := range []string{"//evil.example/x", "///evil.example/x", "%zz"} {
		_, err = mesh.Invoke[greeting, greeting](ctx, c, "svc", method, want)
		require.Error(t, err, "a method is a path, never a host")
	}
	var answer *mesh.ResponseError

	_, err = mesh.Invoke[greeting, greeting](ctx, c, "svc", "svc/problem", want)
	require.ErrorAs(t, err, &answer)
	assert.Equal(t, 409, answer.StatusCode)
	assert.Equal(t, "etag_mismatch", answer.Code)
	assert.Equal(t, "Conflict", answer.Title)
	assert.Equal(t, "key changed", answer.Detail)
	assert.Equal(t, "POST /svc/problem at svc answered 409 Conflict: etag_mismatch: key changed", err.Error())
	_, err = mesh.Invoke[greeting, greeting](ctx, c, "svc", "svc/plain", want)
	require.ErrorAs(t, err, &answer)
	assert.Equal(t, 502, answer.StatusCode)
	assert.Equal(t, "no\n", string(answer.Body))
	_, err = mesh.Invoke[greeting, greeting](ctx, c, "svc", "svc/nothing", want)
	require.ErrorAs(t, err, &answer)
	assert.Equal(t, 404, answer.StatusCode)
}

func TestTimeoutBoundsACallWithoutDeadline(t *testing.T) {
	waysInTime(t, mesh.ClientConfig{Timeout: 2 * time.Second}, func(t *testing.T, c *mesh.Client, n *node) {
		begin := time.Now()
		_, err := c.Do(t.Context(), "bannou", request("GET", "/svc/wait", nil))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		<-n.ended
		resp, err := c.Do(t.Context(), "bannou", request("GET", "/svc/flush-wait", nil))
		require.NoError(t, err)
		defer resp.Body.Close()
		_, err = io.ReadAll(resp.Body)
		require.ErrorIs(t, err, context.DeadlineExceeded, "the body counts too")
		<-n.ended
		assert.Equal(t, 4*time.Second, time.Since(begin))
	})
}

func TestTraceAndRequestIDArePassedOn(t *testing.T) {
	w := newWorld(t)
	var header http.Header
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { header = r.Header.Clone() })
	w.serve(t, "remote", "node-1", h)
	c := w.client(t, mesh.ClientConfig{AppID: "bannou", Local: h})
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	ctx := mesh.WithRequestID(trace.ContextWithSpanContext(t.Context(), span), "request-7")
	for _, target := range []string{"remote", "bannou"} {
		req := request("GET", "/x", nil)
		resp, err := c.Do(ctx, target, req)
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, "00-01000000000000000000000000000000-0200000000000000-01", header.Get("Traceparent"), target)
		assert.Equal(t, "request-7", header.Get("X-Request-Id"))
		assert.Empty(t, req.Header, "the caller's request is not changed")
	}
	req := request("GET", "/x", nil)
	req.Header.Set("X-Request-Id", "mine")
	resp, err := c.Do(ctx, "remote", req)
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, "mine", header.Get("X-Request-Id"))
}

// A node that has just started has not read the registry yet, and must not say that others' services do not exist.
func TestACallWaitsForTheFirstReadOfTheRegistry(t *testing.T) {
	table, feed := meshtest.NewTable(), new(meshtest.Feed)
	w := &world{table: table, feed: feed, registry: newRegistry(t, table, feed)}
	w.directory = mesh.NewDirectory(w.registry, feed, mesh.DirectoryConfig{})
	w.serve(t, "bannou", "node-2", named("there"), "state")
	c := w.client(t, mesh.ClientConfig{AppID: "bannou", InstanceID: "node-1", Local: named("here"), LocalServices: []string{"mesh"}})
	assert.Equal(t, "there /state/get", get(t, c, "bannou", "/state/get"))
}
