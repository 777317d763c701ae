package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bannou-mesh/bannou/integration/link"
	"github.com/bannou-mesh/bannou/pkg/mesh"
)

const (
	callers = 16
	// betweenCalls is a caller's pause after each call, so that the cores are not full.
	betweenCalls = 2 * time.Millisecond
	callTimeout  = 5 * time.Second

	stored = `{"storeName":"auth","key":"demo"}`
)

// A caller is a program that calls services of the mesh: a directory and a client.
type caller struct {
	link      *link.Link
	directory *mesh.Directory
	client    *mesh.Client
	end       context.CancelFunc
	ran       chan error
	answered  answers
}

// newCaller returns when the directory has so many nodes.
func newCaller(ctx context.Context, s link.Servers, nodes int) (*caller, error) {
	log := slog.New(slog.DiscardHandler)
	l, err := link.Open(s, "demo", log) //nolint:contextcheck // it lasts until it is closed
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	c := &caller{link: l, directory: mesh.NewDirectory(l.Registry, l.Feed, mesh.DirectoryConfig{}), end: end, ran: make(chan error, 1)}
	c.answered.RoundTripper = mesh.NewTransport()
	if c.client, err = mesh.NewClient(mesh.ClientConfig{Directory: c.directory, Transport: &c.answered}); err != nil {
		end()
		return nil, errors.Join(err, l.Close(life))
	}
	go func() { c.ran <- c.directory.Run(life) }()
	for len(c.directory.Endpoints(mesh.DefaultAppID)) < nodes {
		if err := pause(ctx, readyPoll); err != nil {
			return c, fmt.Errorf("the registry does not have all nodes: %w", err)
		}
	}
	return c, nil
}

func (c *caller) close(ctx context.Context) error {
	c.end()
	err := <-c.ran
	c.client.Close()
	if t, ok := c.answered.RoundTripper.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
	return errors.Join(err, c.link.Close(ctx))
}

// prepare saves what the load reads.
func (c *caller) prepare(ctx context.Context) error {
	_, err := c.post(ctx, "save", `{"storeName":"auth","key":"demo","value":{"greeting":"hello"}}`, "")
	return err
}

// post calls a method of the state service, wherever it is, and returns how many attempts it took.
func (c *caller) post(ctx context.Context, method, body, key string) (attempts int, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var call callTrace
	req := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: "/state/" + method}, ContentLength: int64(len(body)),
		Header:  http.Header{"Content-Type": {"application/json"}},
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }}
	req.Body, _ = req.GetBody() // never an error
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := c.client.Do(context.WithValue(ctx, traceKey{}, &call), "state", req)
	if err != nil {
		return int(call.attempts.Load()), err
	}
	said, err := io.ReadAll(resp.Body)
	err = errors.Join(err, resp.Body.Close())
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, said)
	}
	if err == nil {
		c.answered.count(*call.last.Load())
	}
	return int(call.attempts.Load()), err
}

type traceKey struct{}

// A callTrace is what the transport saw of a call.
type callTrace struct {
	attempts atomic.Int64
	last     atomic.Pointer[string] // who answered last
}

// answers is a transport that knows who answered how many calls.
type answers struct {
	http.RoundTripper
	mu     sync.Mutex
	byHost map[string]int
}

// RoundTrip notes who answers.
func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	call, ok := r.Context().Value(traceKey{}).(*callTrace)
	if ok {
		call.attempts.Add(1)
	}
	resp, err := a.RoundTripper.RoundTrip(r)
	if ok && err == nil {
		host := r.URL.Host
		call.last.Store(&host)
	}
	return resp, err
}

func (a *answers) count(host string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byHost == nil {
		a.byHost = map[string]int{}
	}
	a.byHost[host]++
}

func (a *answers) counts() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.byHost)
}

// A load is callers that call until it ends.
type load struct {
	caller *caller
	end    func()

	calls, failed, retried atomic.Int64
	first                  atomic.Pointer[error] // why the first one failed that did
}

// totals are a load's sums.
type totals struct {
	calls, failed, retried int
	answered               map[string]int // by address
	first                  error
}

// begin begins to call. The load's end waits for the last call, and may be called again.
func (c *caller) begin() *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{caller: c}
	var all sync.WaitGroup
	for n := range callers {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				l.one(strconv.Itoa(n) + "-" + strconv.Itoa(i)) //nolint:contextcheck // the end of the load ends no call
				_ = pause(ctx, betweenCalls)                   // the loop looks at ctx itself
			}
		})
	}
	l.end = sync.OnceFunc(func() { stop(); all.Wait() })
	return l
}

func (l *load) one(key string) {
	attempts, err := l.caller.post(context.Background(), "get", stored, key)
	l.calls.Add(1)
	l.retried.Add(int64(max(0, attempts-1)))
	if err != nil {
		l.failed.Add(1)
		l.first.CompareAndSwap(nil, &err)
	}
}

func (l *load) totals() totals {
	t := totals{calls: int(l.calls.Load()), failed: int(l.failed.Load()), retried: int(l.retried.Load()), answered: l.caller.answered.counts()}
	if err := l.first.Load(); err != nil {
		t.first = *err
	}
	return t
}

// firstAnswer returns how long it takes from now until a node has answered a call.
func (l *load) firstAnswer(ctx context.Context, n *node) (time.Duration, error) {
	for begun := time.Now(); ; {
		if l.caller.answered.counts()[n.address] > 0 {
			return time.Since(begun), nil
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return 0, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
