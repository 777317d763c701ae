package mesh_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// proxied starts a node's proxy in front of a target, once over a socket and once by direct dispatch.
func proxied(t *testing.T, h http.Handler, cfg mesh.ClientConfig, run func(t *testing.T, base string)) {
	t.Helper()
	for _, way := range []string{"socket", "direct"} {
		t.Run(way, func(t *testing.T) {
			t.Cleanup(http.DefaultClient.CloseIdleConnections)
			run(t, newWorld(t).front(t, way, h, cfg))
		})
	}
}

// proxiedInTime does so in virtual time; caller is who reaches the proxy there.
func proxiedInTime(t *testing.T, cfg mesh.ClientConfig, run func(t *testing.T, caller *http.Client, base string, n *node)) {
	t.Helper()
	for _, way := range []string{"socket", "direct"} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, w := newNode(), newVirtualWorld(t)
				run(t, w.caller(t), w.front(t, way, n, cfg), n)
			})
		})
	}
}

// front returns where paths begin that a proxy passes on to a handler.
func (w *world) front(t *testing.T, way string, h http.Handler, cfg mesh.ClientConfig) (base string) {
	t.Helper()
	app := "bannou-svc"
	cfg.AppID, cfg.InstanceID, cfg.Local, cfg.LocalServices = "bannou", "node-1", http.NotFoundHandler(), []string{"mesh"}
	if way == "socket" {
		w.serve(t, app, "node-2", h, "svc")
	} else {
		cfg.AppID, cfg.Local, cfg.LocalServices = app, h, []string{"svc"}
	}
	mux := http.NewServeMux()
	mux.Handle(mesh.ProxyPattern, mesh.NewProxy(w.client(t, cfg), mesh.ProxyConfig{}))
	return w.listen(t, mux).URL + mesh.ProxyPattern + app + "/method/"
}

func TestProxyPassesEverythingThrough(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		dump, err := httputil.DumpRequest(r, false)
		assert.NoError(t, err)
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2")
		w.Header().Set("X-Uri", r.RequestURI)
		w.Header().Set("X-Dump", fmt.Sprintf("%q", dump))
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-Sum", "42")
	})
	proxied(t, h, mesh.ClientConfig{}, func(t *testing.T, base string) {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH"} {
			req, err := http.NewRequestWithContext(t.Context(), method, base+"svc/a%2Fb/%C3%A9?q=1;2&%zz", bytes.NewReader([]byte{0, 1, 0xff}))
			require.NoError(t, err)
			req.Header.Set("Connection", "X-Secret-Hop")
			req.Header.Set("X-Secret-Hop", "1")
			req.Header.Set("X-Kept", "yes")
			req.Header.Set("X-Forwarded-For", "192.0.2.1")
			req.Header.Set("Traceparent", "00-01000000000000000000000000000000-0200000000000000-01")
			req.Header.Set("X-Request-Id", "request-7")
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			resp.Body.Close()
			assert.Equal(t, 418, resp.StatusCode)
			assert.Equal(t, []byte{0, 1, 0xff}, body)
			assert.Equal(t, "/svc/a%2Fb/%C3%A9?q=1;2&%zz", resp.Header.Get("X-Uri"))
			assert.Equal(t, []string{"a=1", "b=2"}, resp.Header["Set-Cookie"])
			assert.Empty(t, resp.Header.Get("X-Hop"), "hop-by-hop headers end here")
			assert.Equal(t, "42", resp.Trailer.Get("X-Sum"))
			dump := resp.Header.Get("X-Dump")
			assert.Contains(t, dump, method+" ")
			assert.Contains(t, dump, "X-Kept: yes")
			assert.NotContains(t, dump, "X-Secret-Hop")
			assert.Contains(t, dump, "X-Forwarded-For: 192.0.2.1, 127.0.0.1")
			assert.Contains(t, dump, "X-Forwarded-Proto: http")
			assert.Contains(t, dump, "X-Forwarded-Host: "+strings.Split(strings.TrimPrefix(base, "http://"), "/")[0])
			assert.Contains(t, dump, "Traceparent: 00-01000000000000000000000000000000-")
			assert.Contains(t, dump, "X-Request-Id: request-7")
			assert.Contains(t, dump, "Bannou-Hops: 1")
		}
	})
}

func TestProxyStreams(t *testing.T) {
	n := newNode()
	proxied(t, n, mesh.ClientConfig{}, func(t *testing.T, base string) {
		t.Run("server-sent events arrive at once", func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"svc/flush-wait", nil)
			require.NoError(t, err)
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			line, err := bufio.NewReader(resp.Body).ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, "event: 1\n", line)
			cancel()
			require.ErrorIs(t, <-n.ended, context.Canceled, "the caller's going is passed on")
		})
		t.Run("also the beginning of a body whose length is known", func(t *testing.T) {
			resp, err := http.Get(base + "svc/slowly")
			require.NoError(t, err)
			defer resp.Body.Close()
			half := make([]byte, 5)
			_, err = io.ReadFull(resp.Body, half)
			require.NoError(t, err)
			n.proceed <- struct{}{}
			rest, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			assert.Equal(t, "1234567890", string(half)+string(rest))
		})
		t.Run("bodies cross", func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			pr, pw := io.Pipe()
			defer pw.Close()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"svc/pingpong", pr)
			require.NoError(t, err)
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			for _, word := range []string{"one", "two"} {
				_, err := io.WriteString(pw, word)
				require.NoError(t, err)
				answer := make([]byte, 3)
				_, err = io.ReadFull(resp.Body, answer)
				require.NoError(t, err)
				assert.Equal(t, strings.ToUpper(word), string(answer))
			}
		})
		t.Run("large bodies both ways", func(t *testing.T) {
			content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
			resp, err := http.Post(base+"svc/echo", "", bytes.NewReader(content))
			require.NoError(t, err)
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(content, body))
		})
	})
}

// The time of a call is for its head, and for a body of the request that stands still.
func TestProxyTimes(t *testing.T) {
	for what, runs := range map[string]func(t *testing.T, caller *http.Client, base string, n *node){
		"a response may take longer": func(t *testing.T, caller *http.Client, base string, n *node) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"svc/flush-wait", nil)
			require.NoError(t, err)
			resp, err := caller.Do(req)
			require.NoError(t, err)
			defer resp.Body.Close()
			select {
			case <-n.ended:
				t.Fatal("the stream was ended")
			case <-time.After(time.Hour):
			}
			cancel()
			require.ErrorIs(t, <-n.ended, context.Canceled)
		},
		"an upload may, as long as it moves": func(t *testing.T, caller *http.Client, base string, _ *node) {
			pr, pw := io.Pipe()
			defer pr.Close()
			go func() {
				for range 10 {
					pass(1900 * time.Millisecond)
					_, _ = pw.Write([]byte("x"))
				}
				pw.Close()
			}()
			resp, err := caller.Post(base+"svc/request-trailer", "", pr)
			require.NoError(t, err)
			resp.Body.Close()
			assert.Equal(t, 200, resp.StatusCode)
		},
		"an upload that stands still is given up": func(t *testing.T, caller *http.Client, base string, n *node) {
			pr, pw := io.Pipe()
			defer pw.Close()
			begin := time.Now()
			resp, err := caller.Post(base+"svc/wait-body", "", pr)
			require.NoError(t, err)
			defer resp.Body.Close()
			assert.Equal(t, 504, resp.StatusCode)
			assert.InDelta(t, 2, time.Since(begin).Seconds(), 0.5, "and a moment for what of it may be there")
			require.Error(t, <-n.ended)
		},
	} {
		t.Run(what, func(t *testing.T) { proxiedInTime(t, mesh.ClientConfig{Timeout: 2 * time.Second}, runs) })
	}
}

type problem struct {
	Status              int
	Code, Title, Detail string
}

func fetchProblem(t *testing.T, h http.Handler, path string, header http.Header) problem {
	t.Helper()
	rec := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
	req.Header = header
	h.ServeHTTP(rec, req)
	assert.Equal(t, "application/problem+json", rec.Header().Get("Content-Type"))
	var p problem
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &p), rec.Body.String())
	assert.Equal(t, rec.Code, p.Status)
	return p
}

func TestProxyErrors(t *testing.T) { synctest.Test(t, testProxyErrors) }

func testProxyErrors(t *testing.T) {
	w := newVirtualWorld(t)
	w.register(t, at(endpoint("dead", "node-1"), deadAddress))
	draining := endpoint("draining", "node-2")
	draining.Status = mesh.StatusShuttingDown
	w.register(t, draining)
	n := newNode()
	w.serve(t, "slow", "node-3", n)
	h := mesh.NewProxy(w.client(t, mesh.ClientConfig{Policies: map[string]mesh.Policy{"slow": {Timeout: 50 * time.Millisecond}}}), mesh.ProxyConfig{})
	for path, want := range map[string]problem{
		"/v1.0/invoke/nothing/method/x":     {Status: 404, Code: "unknown_target"},
		"/v1.0/invoke/draining/method/x":    {Status: 503, Code: "no_endpoint"},
		"/v1.0/invoke/dead/method/x":        {Status: 502, Code: "bad_gateway"},
		"/v1.0/invoke/slow/method/svc/wait": {Status: 504, Code: "timeout"},
		"/v1.0/invoke/slow":                 {Status: 400, Code: "invalid"},
		"/v1.0/invoke/slow/x/y":             {Status: 400, Code: "invalid"},
		"/v1.0/invoke/Bad%20Name/method/x":  {Status: 400, Code: "invalid"},
	} {
		p := fetchProblem(t, h, path, http.Header{})
		assert.Equal(t, want.Status, p.Status, path)
		assert.Equal(t, want.Code, p.Code, path)
		assert.NotContains(t, p.Detail, "127.0.0.1", "addresses are not for callers")
	}
	<-n.ended
	p := fetchProblem(t, h, "/v1.0/invoke/slow/method/svc/echo", http.Header{"Bannou-Hops": {"4"}})
	assert.Equal(t, 508, p.Status)
	assert.Equal(t, "loop_detected", p.Code)
	p = fetchProblem(t, h, "/v1.0/invoke/slow/method/svc/echo", http.Header{"Bannou-Hops": {"99999999999999999999"}})
	assert.Equal(t, "loop_detected", p.Code, "too many to count")
	for _, hops := range [][]string{{"-3"}, {""}, {"+1"}, {"1.5"}, {"0x1"}, {"many"}, {"1, 2"}, {"1", "1"}} {
		p := fetchProblem(t, h, "/v1.0/invoke/slow/method/svc/echo", http.Header{"Bannou-Hops": hops})
		assert.Equal(t, 400, p.Status, hops)
		assert.Equal(t, "invalid", p.Code, hops)
		assert.Contains(t, p.Detail, "Bannou-Hops must be one number", hops)
	}
}

func TestProxyThatPointsAtProxiesEnds(t *testing.T) {
	// Two nodes, each believing that the app-id is on the other's proxy path.
	w := newWorld(t)
	var next http.Handler
	node := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/v1.0/invoke/looping/method/x"
		r.URL.RawPath = ""
		next.ServeHTTP(w, r)
	})
	w.serve(t, "looping", "node-1", node)
	next = mesh.NewProxy(w.client(t, mesh.ClientConfig{}), mesh.ProxyConfig{})
	p := fetchProblem(t, next, "/v1.0/invoke/looping/method/x", http.Header{})
	assert.Equal(t, "loop_detected", p.Code)
}

func TestProxyErrorHandlerAndCallersThatWent(t *testing.T) {
	synctest.Test(t, testProxyErrorHandlerAndCallersThatWent)
}

func testProxyErrorHandlerAndCallersThatWent(t *testing.T) {
	w := newVirtualWorld(t)
	n := newNode()
	w.serve(t, "slow", "node-3", n)
	errs := make(chan error, 1)
	h := mesh.NewProxy(w.client(t, mesh.ClientConfig{}), mesh.ProxyConfig{ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
		errs <- err
		w.WriteHeader(599)
	}})
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", "/v1.0/invoke/nothing/method/x", nil))
	assert.Equal(t, 599, rec.Code)
	require.ErrorIs(t, <-errs, mesh.ErrUnknownTarget)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() { // for the server to break the connection
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/v1.0/invoke/slow/method/svc/wait", nil))
	})
	require.Error(t, <-n.ended)
	assert.Empty(t, errs, "nobody reads an answer")
}

func TestProxyUpgrade(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/svc/socket" || r.Header.Get("Upgrade") != "echo" {
			http.Error(w, "what", http.StatusBadRequest)
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := buffered.ReadString('\n')
		_, _ = io.WriteString(conn, strings.ToUpper(line))
	})
	proxied(t, h, mesh.ClientConfig{}, func(t *testing.T, base string) {
		address, path, _ := strings.Cut(strings.TrimPrefix(base, "http://"), "/")
		conn, err := net.Dial("tcp", address)
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		fmt.Fprintf(conn, "GET /%ssvc/socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", path)
		answers := bufio.NewReader(conn)
		resp, err := http.ReadResponse(answers, nil)
		require.NoError(t, err)
		require.Equal(t, 101, resp.StatusCode)
		fmt.Fprint(conn, "hello\n")
		line, err := answers.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "HELLO\n", line)
	})
}

func TestErrorStatusKnowsEverySentinel(t *testing.T) {
	for err, want := range map[error]int{
		mesh.ErrInvalid: 400, mesh.ErrNotFound: 404, mesh.ErrUnknownTarget: 404, mesh.ErrConflict: 409, mesh.ErrUnavailable: 503,
		mesh.ErrNoEndpoint: 503, mesh.ErrTooManyHops: 508, context.DeadlineExceeded: 504, errors.New("x"): 502,
	} {
		status, code := mesh.ErrorStatus(fmt.Errorf("wrapped: %w", err))
		assert.Equal(t, want, status, err)
		assert.NotEmpty(t, code)
	}
}
