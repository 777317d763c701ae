package mesh_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// A fleet answers for instances without sockets, so that time can be virtual: node-0, node-1 and so on by their ports.
type fleet struct {
	answer func(node int, r *http.Request) (*http.Response, error)
	mu     sync.Mutex
	seen   []seen
}

// A seen is a request as an instance got it.
type seen struct {
	node   int
	at     time.Time
	header http.Header
	body   string
}

func (f *fleet) RoundTrip(r *http.Request) (*http.Response, error) {
	port, _ := strconv.Atoi(r.URL.Port())
	s := seen{node: port - 3500, at: time.Now(), header: r.Header.Clone()}
	if r.Body != nil {
		body, _ := io.ReadAll(r.Body)
		s.body = string(body)
		r.Body.Close()
	}
	f.mu.Lock()
	f.seen = append(f.seen, s)
	f.mu.Unlock()
	return f.answer(s.node, r)
}

func (f *fleet) nodes() (nodes []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.seen {
		nodes = append(nodes, s.node)
	}
	return nodes
}

func answer(r *http.Request, status int, pairs ...string) (*http.Response, error) {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader("answer")), ContentLength: 6, Request: r}, nil
}

// newFleet makes a client of n instances of "app".
func newFleet(t testing.TB, n int, cfg mesh.ClientConfig, f *fleet) *mesh.Client {
	t.Helper()
	w := newWorld(t)
	for i := range n {
		e := endpoint("app", "node-"+strconv.Itoa(i))
		e.Port = 3500 + i
		w.register(t, e)
	}
	cfg.Transport = f
	if cfg.Balancer == nil {
		cfg.Balancer = mesh.RoundRobin()
	}
	return w.client(t, cfg)
}

func failing(status int) *fleet {
	return &fleet{answer: func(_ int, r *http.Request) (*http.Response, error) { return answer(r, status) }}
}

var errBroken = errors.New("connection reset")

func TestWhatIsSafeIsSentAgain(t *testing.T) {
	rewindable := func(method, key string) *http.Request {
		req, err := http.NewRequest(method, "/x", strings.NewReader("body"))
		require.NoError(t, err)
		if key != "" {
			req.Header.Set("Idempotency-Key", key)
		}
		return req
	}
	upgrade := request("GET", "/x", nil)
	upgrade.Header = http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}}
	elsewhere := request("GET", "/x", nil)
	elsewhere.Header = http.Header{"Bannou-Retries": {"caller"}}
	for _, c := range []struct {
		name   string
		req    *http.Request
		status int // 0: the connection breaks
		want   int
	}{
		{"GET", request("GET", "/x", nil), 503, 3},
		{"HEAD", request("HEAD", "/x", nil), 502, 3},
		{"OPTIONS", request("OPTIONS", "/x", nil), 504, 3},
		{"DELETE", request("DELETE", "/x", nil), 0, 3},
		{"PUT with a body that can be made again", rewindable("PUT", ""), 503, 3},
		{"PUT with one that cannot", request("PUT", "/x", io.NopCloser(strings.NewReader("body"))), 503, 1},
		{"POST", rewindable("POST", ""), 503, 1},
		{"POST that breaks", rewindable("POST", ""), 0, 1},
		{"PATCH", rewindable("PATCH", ""), 503, 1},
		{"POST with a key", rewindable("POST", "order-7"), 503, 3},
		{"POST with a key that breaks", rewindable("POST", "order-7"), 0, 3},
		{"an answer", request("GET", "/x", nil), 500, 1},
		{"another answer", request("GET", "/x", nil), 429, 1},
		{"an upgrade", upgrade, 503, 1},
		{"someone else tries again", elsewhere, 503, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := failing(c.status)
				if c.status == 0 {
					f.answer = func(int, *http.Request) (*http.Response, error) { return nil, errBroken }
				}
				client := newFleet(t, 3, mesh.ClientConfig{}, f)
				resp, err := client.Do(t.Context(), "app", c.req)
				if c.status == 0 {
					require.ErrorIs(t, err, errBroken)
				} else {
					require.NoError(t, err)
					assert.Equal(t, c.status, resp.StatusCode, "the last answer is the call's")
					resp.Body.Close()
				}
				require.Len(t, f.seen, c.want)
				nodes := map[int]bool{}
				for _, s := range f.seen {
					nodes[s.node] = true
					assert.Equal(t, f.seen[0].body, s.body)
				}
				assert.Len(t, nodes, c.want, "another instance first")
				assert.Equal(t, uint64(c.want-1), client.Targets()[0].Retries)
			})
		})
	}
}

func TestAKeyOfTheContextMakesInvokeSafe(t *testing.T) {
	f := &fleet{answer: func(node int, r *http.Request) (*http.Response, error) {
		if node == 2 {
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		}
		return answer(r, 503)
	}}
	client := newFleet(t, 3, mesh.ClientConfig{}, f)
	ctx := mesh.WithIdempotencyKey(t.Context(), "order-7")
	_, err := mesh.Invoke[string, struct{}](ctx, client, "app", "orders/place", "x")
	require.NoError(t, err)
	last := f.seen[len(f.seen)-1]
	assert.Equal(t, "order-7", last.header.Get("Idempotency-Key"))
	assert.Equal(t, `"x"`, last.body)
}

// Every server on a way may try again, and each must not do so for what the one before it tries again.
func TestAttemptsDoNotMultiply(t *testing.T) {
	f := failing(503)
	client := newFleet(t, 3, mesh.ClientConfig{}, f)
	resp, err := client.Do(t.Context(), "app", request("GET", "/x", nil))
	require.NoError(t, err)
	resp.Body.Close()
	require.Len(t, f.seen, 3)
	assert.Equal(t, "caller", f.seen[0].header.Get("Bannou-Retries"))
	assert.Equal(t, "spent", f.seen[1].header.Get("Bannou-Retries"))
	assert.Equal(t, "spent", f.seen[2].header.Get("Bannou-Retries"))

	// A chain of real servers: each handler calls the next, the last one always fails.
	w := newWorld(t)
	var calls atomic.Int32
	w.serve(t, "last", "node-9", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	retries := mesh.Policy{Retry: mesh.Retry{Delay: time.Microsecond}}
	chained := w.client(t, mesh.ClientConfig{Policy: retries})
	pass := func(next string) http.Handler {
		return mesh.Inbound(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			resp, err := chained.Do(r.Context(), next, request("GET", "/x", nil))
			if assert.NoError(t, err) {
				resp.Body.Close()
				w.WriteHeader(resp.StatusCode)
			}
		}))
	}
	w.serve(t, "third", "node-8", pass("last"))
	w.serve(t, "second", "node-7", pass("third"))
	w.serve(t, "first", "node-6", pass("second"))
	resp, err = chained.Do(t.Context(), "first", request("GET", "/x", nil))
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, int32(3+2+2+2), calls.Load(), "with every layer on its own it would be 81")

	// The invoke endpoint tries again for programs that do not.
	calls.Store(0)
	w.serve(t, "gate", "node-5", mesh.NewProxy(chained, mesh.ProxyConfig{}))
	other := w.client(t, mesh.ClientConfig{Policy: retries})
	resp, err = other.Do(t.Context(), "gate", request("GET", mesh.ProxyPattern+"last/method/x", nil))
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, int32(3), calls.Load(), "the client does, so the endpoint does not")
	calls.Store(0)
	off := w.client(t, mesh.ClientConfig{Policy: mesh.Policy{Retry: mesh.Retry{Max: -1}}})
	resp, err = off.Do(t.Context(), "gate", request("GET", mesh.ProxyPattern+"last/method/x", nil))
	require.NoError(t, err)
	resp.Body.Close()
	assert.Equal(t, int32(3), calls.Load(), "the client does not, so the endpoint does")
}

func TestRetryAfterIsWaitedForWhereNobodyElseCanBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := failing(0)
		f.answer = func(_ int, r *http.Request) (*http.Response, error) {
			if len(f.nodes()) == 1 {
				return answer(r, 503, "Retry-After", "3")
			}
			return answer(r, 200)
		}
		client := newFleet(t, 1, mesh.ClientConfig{}, f)
		assert.Equal(t, "answer", get(t, client, "app", "/x"))
		require.Len(t, f.seen, 2)
		assert.GreaterOrEqual(t, f.seen[1].at.Sub(f.seen[0].at), 3*time.Second)
	})
	synctest.Test(t, func(t *testing.T) {
		f := failing(0)
		f.answer = func(_ int, r *http.Request) (*http.Response, error) {
			return answer(r, 503, "Retry-After", time.Now().Add(20*time.Second).UTC().Format(http.TimeFormat))
		}
		client := newFleet(t, 1, mesh.ClientConfig{}, f)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		resp, err := client.Do(ctx, "app", request("GET", "/x", nil))
		require.NoError(t, err)
		resp.Body.Close()
		assert.Equal(t, 503, resp.StatusCode)
		assert.Len(t, f.seen, 1, "the deadline comes first")
		assert.Zero(t, time.Since(begin), "and nobody waits for nothing")
	})
	synctest.Test(t, func(t *testing.T) {
		f := failing(0)
		f.answer = func(node int, r *http.Request) (*http.Response, error) {
			if len(f.nodes()) == 1 {
				return answer(r, 503, "Retry-After", "3")
			}
			return answer(r, 200)
		}
		client := newFleet(t, 2, mesh.ClientConfig{}, f)
		assert.Equal(t, "answer", get(t, client, "app", "/x"))
		assert.Less(t, f.seen[1].at.Sub(f.seen[0].at), time.Second, "one instance's wish is not the other's")
	})
}

func TestAnAttemptHasATimeOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := failing(0)
		f.answer = func(node int, r *http.Request) (*http.Response, error) {
			if node == f.nodes()[0] {
				<-r.Context().Done()
				return nil, context.Cause(r.Context())
			}
			return answer(r, 200)
		}
		client := newFleet(t, 2, mesh.ClientConfig{Policy: mesh.Policy{AttemptTimeout: time.Second}}, f)
		begin := time.Now()
		assert.Equal(t, "answer", get(t, client, "app", "/x"))
		assert.InDelta(t, 1, time.Since(begin).Seconds(), 0.1)
		assert.Len(t, f.seen, 2)

		_, err := client.Do(t.Context(), "app", request("POST", "/x", nil))
		for ; err == nil; _, err = client.Do(t.Context(), "app", request("POST", "/x", nil)) {
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "one attempt", "a POST is not sent again")
	})
}

// The property that everything else rests on: whatever fails, servers see no more than the budget allows.
func TestRetriesStayInTheBudgetWhenEverythingFails(t *testing.T) {
	w := newWorld(t)
	var served atomic.Int64
	overloaded := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if served.Add(1)%3 == 0 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Connection", "close") // net/http sends again by itself what a kept connection did not take
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	for i := range 3 {
		w.serve(t, "app", "node-"+strconv.Itoa(i), overloaded)
	}
	client := w.client(t, mesh.ClientConfig{Policy: mesh.Policy{Retry: mesh.Retry{Delay: time.Millisecond}, Breaker: mesh.Breaker{Off: true}}})
	const callers, each = 16, 100
	begin := time.Now()
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			for range each {
				if resp, err := client.Do(context.Background(), "app", request("GET", "/x", nil)); err == nil {
					resp.Body.Close()
				}
			}
		})
	}
	running.Wait()
	windows := int64(time.Since(begin)/(10*time.Second)) + 1
	limit := int64(callers*each*12/10) + windows*100
	t.Logf("%d calls, %d requests seen by servers, limit %d", callers*each, served.Load(), limit)
	assert.LessOrEqual(t, served.Load(), limit)
	assert.Greater(t, served.Load(), int64(callers*each), "it did try")
	state := client.Targets()[0]
	assert.Equal(t, served.Load(), int64(callers*each)+int64(state.Retries))
	assert.Positive(t, state.RetriesRefused)
}
