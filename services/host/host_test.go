package host_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/problem"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// journal is what happened, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string{}, j.lines...)
}

// part is a service whose every step a test can decide.
type part struct {
	host.Base
	name    string
	needs   []string
	journal *journal
	mount   func(mux *http.ServeMux)
	start   func(ctx context.Context) error
	stop    func(ctx context.Context) error
	ready   func(ctx context.Context) error
	drain   func(ctx context.Context)
	openAPI string
}

func (p *part) Name() string        { return p.name }
func (p *part) DependsOn() []string { return p.needs }
func (p *part) OpenAPI() []byte     { return []byte(p.openAPI) }
func (p *part) Mount(mux *http.ServeMux) error {
	if p.mount != nil {
		p.mount(mux)
	}
	return nil
}
func (p *part) Start(ctx context.Context) error {
	p.journal.add("start %s", p.name)
	if p.start != nil {
		return p.start(ctx)
	}
	return nil
}
func (p *part) Stop(ctx context.Context) error {
	p.journal.add("stop %s", p.name)
	if p.stop != nil {
		return p.stop(ctx)
	}
	return nil
}
func (p *part) Ready(ctx context.Context) error {
	if p.ready != nil {
		return p.ready(ctx)
	}
	return nil
}
func (p *part) Drain(ctx context.Context) {
	p.journal.add("drain %s", p.name)
	if p.drain != nil {
		p.drain(ctx)
	}
}

// running is a host that runs.
type running struct {
	*host.Host
	t      *testing.T
	url    string
	client *http.Client
	stop   context.CancelFunc
	done   chan error
}

// run starts a host with the given parts and waits for it to listen.
func run(t *testing.T, cfg host.Config, parts ...host.Service) *running {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	h, err := host.New(cfg)
	require.NoError(t, err)
	for _, p := range parts {
		require.NoError(t, h.Add(p))
	}
	return serve(t, h)
}

func serve(t *testing.T, h *host.Host) *running {
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{Host: h, t: t, stop: cancel, done: make(chan error, 1), client: &http.Client{Transport: &http.Transport{}}}
	go func() { r.done <- h.Run(ctx) }()
	select {
	case <-h.Listening():
	case err := <-r.done:
		r.done <- err
		t.Fatalf("the host ended: %v", err)
	}
	r.url = "http://" + h.Addr().String()
	t.Cleanup(func() {
		cancel()
		h.HardStop()
		<-r.done
		r.client.CloseIdleConnections()
	})
	return r
}

func (r *running) started() *running {
	r.t.Helper()
	select {
	case <-r.Started():
	case err := <-r.done:
		r.done <- err
		r.t.Fatalf("the host ended: %v", err)
	}
	return r
}

// end waits for Run to return.
func (r *running) end() error {
	err := <-r.done
	r.done <- err
	return err
}

func (r *running) get(path string) (int, string, http.Header) {
	r.t.Helper()
	return r.do(http.MethodGet, path, nil)
}

func (r *running) do(method, path string, header http.Header) (int, string, http.Header) {
	r.t.Helper()
	request, err := http.NewRequest(method, r.url+path, nil)
	require.NoError(r.t, err)
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := r.client.Do(request)
	require.NoError(r.t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(r.t, err)
	return response.StatusCode, string(body), response.Header
}

func handle(pattern string, h http.HandlerFunc) func(*http.ServeMux) {
	return func(mux *http.ServeMux) { mux.HandleFunc(pattern, h) }
}

func TestStartsInOrderOfDependenceAndStopsInReverse(t *testing.T) {
	var j journal
	r := run(t, host.Config{},
		&part{name: "c", needs: []string{"b", "a"}, journal: &j},
		&part{name: "a", journal: &j},
		&part{name: "b", needs: []string{"a"}, journal: &j},
		&part{name: "d", journal: &j}).started()
	r.stop()
	require.NoError(t, r.end())
	lines := j.all()
	require.Equal(t, []string{"start a", "start b", "start c", "start d"}, lines[:4])
	require.ElementsMatch(t, []string{"drain a", "drain b", "drain c", "drain d"}, lines[4:8])
	require.Equal(t, []string{"stop d", "stop c", "stop b", "stop a"}, lines[8:])
}

func TestMistakesInTheOrderAreErrors(t *testing.T) {
	var j journal
	for name, c := range map[string]struct {
		parts []host.Service
		says  string
	}{
		"unknown":  {[]host.Service{&part{name: "a", needs: []string{"x"}, journal: &j}}, `"a" depends on "x"`},
		"circle":   {[]host.Service{&part{name: "a", needs: []string{"b"}}, &part{name: "b", needs: []string{"c"}}, &part{name: "c", needs: []string{"b"}}}, "b -> c -> b"},
		"itself":   {[]host.Service{&part{name: "a", needs: []string{"a"}}}, "a -> a"},
		"twice":    {[]host.Service{&part{name: "a"}, &part{name: "a"}}, "added twice"},
		"nameless": {[]host.Service{&part{}}, "no name"},
		"same path": {[]host.Service{
			&part{name: "a", mount: handle("GET /x", nil2)}, &part{name: "b", mount: handle("GET /x", nil2)}}, `mount service "b"`},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
			require.NoError(t, err)
			for _, p := range c.parts {
				require.NoError(t, h.Add(p))
			}
			require.ErrorContains(t, h.Run(t.Context()), c.says)
			require.Empty(t, j.all(), "nothing is started")
		})
	}
}

func nil2(http.ResponseWriter, *http.Request) {}

func TestAPortInUseIsAnError(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	h, err := host.New(host.Config{Listen: listener.Addr().String()})
	require.NoError(t, err)
	err = h.Run(t.Context())
	require.ErrorContains(t, err, "address already in use")
	require.ErrorContains(t, err, listener.Addr().String())
}

func TestAHostRunsOnce(t *testing.T) {
	var j journal
	r := run(t, host.Config{}, &part{name: "a", journal: &j}).started()
	require.ErrorIs(t, r.Run(t.Context()), host.ErrUsed)
	require.ErrorIs(t, r.Add(&part{name: "b"}), host.ErrUsed)
	status, _, _ := r.get("/healthz")
	require.Equal(t, 200, status, "the first run goes on")
	r.stop()
	require.NoError(t, r.end())
	require.ErrorIs(t, r.Run(t.Context()), host.ErrUsed)
}

func TestAFailingStartStopsWhatWasStarted(t *testing.T) {
	var j journal
	broken := errors.New("disk full")
	h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	require.NoError(t, h.Add(&part{name: "a", journal: &j}))
	require.NoError(t, h.Add(&part{name: "b", journal: &j, needs: []string{"a"}}))
	require.NoError(t, h.Add(&part{name: "c", journal: &j, needs: []string{"b"}, start: func(context.Context) error { return broken }}))
	require.NoError(t, h.Add(&part{name: "d", journal: &j, needs: []string{"c"}}))
	err = h.Run(t.Context())
	require.ErrorIs(t, err, broken)
	require.ErrorContains(t, err, `"c"`)
	require.Equal(t, []string{"start a", "start b", "start c", "stop b", "stop a"}, j.all())
	_, err = net.DialTimeout("tcp", h.Addr().String(), time.Second)
	require.Error(t, err, "the listener is closed")
}

func TestStopWhileStarting(t *testing.T) {
	var j journal
	reached := make(chan struct{})
	r := run(t, host.Config{},
		&part{name: "a", journal: &j},
		&part{name: "b", journal: &j, needs: []string{"a"}, start: func(ctx context.Context) error {
			close(reached)
			<-ctx.Done()
			return ctx.Err()
		}},
		&part{name: "c", journal: &j, needs: []string{"b"}})
	<-reached
	r.stop()
	require.NoError(t, r.end())
	lines := j.all()
	require.Equal(t, []string{"start a", "start b"}, lines[:2])
	require.Equal(t, "stop a", lines[len(lines)-1])
	require.NotContains(t, lines, "start c")
	require.NotContains(t, lines, "stop b")
}

func TestWhileStartingItIsAliveAndNotReady(t *testing.T) {
	var j journal
	reached, proceed := make(chan struct{}), make(chan struct{})
	r := run(t, host.Config{}, &part{name: "slow", journal: &j, mount: handle("GET /x", nil2), start: func(context.Context) error {
		close(reached)
		<-proceed
		return nil
	}})
	<-reached
	status, _, _ := r.get("/healthz")
	require.Equal(t, 200, status)
	status, body, header := r.get("/readyz")
	require.Equal(t, 503, status)
	require.Contains(t, body, `"starting"`)
	require.Equal(t, "1", header.Get("Retry-After"))
	status, body, _ = r.get("/x")
	require.Equal(t, 503, status)
	require.Contains(t, body, `"code":"unavailable"`)
	close(proceed)
	r.started()
	status, _, _ = r.get("/readyz")
	require.Equal(t, 200, status)
	status, _, _ = r.get("/x")
	require.Equal(t, 200, status)
}

// What is lacking and does not keep the node from its work is shown, and does not drive callers away.
func TestReadyzShowsWhatIsDegraded(t *testing.T) {
	var j journal
	h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	require.NoError(t, h.Add(measured{&part{name: "spool", journal: &j}}))
	broken := errors.New("the disk is full")
	var more atomic.Pointer[error]
	h.AddDependency("broker", func(context.Context) error { return host.Degraded(errors.New("the broker is away")) })
	h.AddDependency("disk", func(context.Context) error {
		if err := more.Load(); err != nil {
			return *err
		}
		return nil
	})
	r := serve(t, h).started()
	status, body, header := r.get("/readyz")
	require.Equal(t, 200, status)
	require.Empty(t, header.Get("Retry-After"))
	require.Contains(t, body, `{"status":"degraded"`)
	require.Contains(t, body, "the broker is away")
	require.Contains(t, body, `"figures":{"depth":3}`)
	more.Store(&broken)
	status, body, _ = r.get("/readyz")
	require.Equal(t, 503, status)
	require.Contains(t, body, `{"status":"notReady"`)
	require.NoError(t, host.Degraded(nil))
}

type measured struct{ *part }

func (measured) Figures() map[string]float64 { return map[string]float64{"depth": 3} }

func TestReadyzTellsOfEachDependencyAndService(t *testing.T) {
	var j journal
	hang := make(chan struct{})
	defer close(hang)
	h, err := host.New(host.Config{Listen: "127.0.0.1:0", ReadyTimeout: time.Second})
	require.NoError(t, err)
	require.NoError(t, h.Add(&part{name: "good", journal: &j}))
	require.NoError(t, h.Add(&part{name: "bad", journal: &j, ready: func(context.Context) error { return errors.New("the disk is full") }}))
	h.AddDependency("broker", func(context.Context) error { <-hang; return nil })
	h.AddDependency("cache", func(context.Context) error { panic("oops") })
	r := serve(t, h).started()

	begin := time.Now()
	status, body, _ := r.get("/readyz")
	require.Less(t, time.Since(begin), 20*time.Second, "a check that hangs is not waited for")
	require.Equal(t, 503, status)
	var got struct {
		Status                 string
		Dependencies, Services []struct{ Name, Status, Error string }
	}
	require.NoError(t, json.Unmarshal([]byte(body), &got))
	require.Equal(t, "notReady", got.Status)
	require.Equal(t, "broker", got.Dependencies[0].Name)
	require.Contains(t, got.Dependencies[0].Error, "no answer within 1s")
	require.Contains(t, got.Dependencies[1].Error, "oops")
	byName := map[string]string{}
	for _, s := range got.Services {
		byName[s.Name] = s.Status + " " + s.Error
	}
	require.Equal(t, map[string]string{"good": "ready ", "bad": "notReady the disk is full"}, byName)
}

func TestDrain(t *testing.T) {
	var j journal
	entered, finish := make(chan struct{}), make(chan struct{})
	drainEntered, drainProceed := make(chan struct{}), make(chan struct{})
	r := run(t, host.Config{}, &part{name: "a", journal: &j,
		mount: handle("GET /slow", func(w http.ResponseWriter, _ *http.Request) {
			close(entered)
			<-finish
			_, _ = io.WriteString(w, "whole")
		}),
		drain: func(context.Context) { close(drainEntered); <-drainProceed },
	}).started()

	answer := make(chan string, 1)
	go func() {
		_, body, _ := r.get("/slow")
		answer <- body
	}()
	<-entered
	r.stop()
	<-drainEntered
	// The announcement goes out while the listener still takes connections, and readyz says so.
	status, body, _ := r.get("/readyz")
	require.Equal(t, 503, status)
	require.Contains(t, body, `"draining"`)
	close(drainProceed)
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", r.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	}, 20*time.Second, time.Millisecond, "the listener closes")
	require.NotContains(t, j.all(), "stop a", "services stop after the requests")
	close(finish)
	require.Equal(t, "whole", <-answer)
	require.NoError(t, r.end())
	require.Equal(t, "stop a", j.all()[len(j.all())-1])
}

func TestDrainTimeoutCutsRequestsOff(t *testing.T) {
	var j journal
	entered := make(chan struct{})
	r := run(t, host.Config{DrainTimeout: 20 * time.Millisecond}, &part{name: "a", journal: &j,
		mount: handle("GET /slow", func(_ http.ResponseWriter, q *http.Request) {
			close(entered)
			<-q.Context().Done()
		})}).started()
	go func() {
		response, err := r.client.Get(r.url + "/slow")
		if err == nil {
			response.Body.Close()
		}
	}()
	<-entered
	r.stop()
	require.NoError(t, r.end())
}

func TestHardStopWaitsForNothing(t *testing.T) {
	var j journal
	entered := make(chan struct{})
	r := run(t, host.Config{DrainTimeout: time.Hour, StopTimeout: time.Hour}, &part{name: "a", journal: &j,
		mount: handle("GET /slow", func(_ http.ResponseWriter, q *http.Request) {
			close(entered)
			<-q.Context().Done()
		}),
		stop: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
	}).started()
	go func() {
		response, err := r.client.Get(r.url + "/slow")
		if err == nil {
			response.Body.Close()
		}
	}()
	<-entered
	r.stop()
	r.HardStop()
	require.ErrorIs(t, r.end(), context.Canceled, "the service was not given time to stop")
	require.Contains(t, j.all(), "stop a")
}

func TestUnknownPathsAndMethodsAreProblems(t *testing.T) {
	var j journal
	r := run(t, host.Config{}, &part{name: "a", journal: &j, mount: handle("POST /a/{b}", nil2)}).started()
	status, body, header := r.get("/nowhere")
	require.Equal(t, 404, status)
	require.Equal(t, problem.ContentType, header.Get("Content-Type"))
	require.Contains(t, body, `"code":"not_found"`)
	require.Contains(t, body, "/nowhere")

	status, body, header = r.get("/a/x")
	require.Equal(t, 405, status)
	require.Equal(t, "POST", header.Get("Allow"))
	require.Contains(t, body, `"code":"method_not_allowed"`)
	require.Contains(t, body, "use POST")
}

func TestRequestIDs(t *testing.T) {
	var j journal
	seen := make(chan string, 1)
	r := run(t, host.Config{}, &part{name: "a", journal: &j, mount: handle("GET /x", func(_ http.ResponseWriter, q *http.Request) {
		seen <- host.RequestID(q.Context())
	})}).started()
	for sent, kept := range map[string]bool{
		"abc-123": true, "A.b:c_d": true, strings.Repeat("a", 128): true,
		"": false, "a b": false, "a\"b": false, strings.Repeat("a", 129): false,
	} {
		_, _, header := r.do(http.MethodGet, "/x", http.Header{"X-Request-Id": {sent}})
		got := header.Get("X-Request-Id")
		require.Equal(t, got, <-seen, "the handler sees what the caller is told")
		if kept {
			require.Equal(t, sent, got)
		} else {
			require.Len(t, got, 36, sent)
		}
	}
	_, body, header := r.get("/nowhere")
	require.Contains(t, body, header.Get("X-Request-Id"), "a problem names its request")
}

func TestPanicsAreAnsweredAndLogged(t *testing.T) {
	var j journal
	var log lockedBuffer
	r := run(t, host.Config{Logger: slog.New(slog.NewJSONHandler(&log, nil))}, &part{name: "a", journal: &j, mount: func(mux *http.ServeMux) {
		mux.HandleFunc("GET /early", func(http.ResponseWriter, *http.Request) { panic("secret of the house") })
		mux.HandleFunc("GET /late", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic("too late")
		})
	}}).started()
	status, body, _ := r.get("/early")
	require.Equal(t, 500, status)
	require.Contains(t, body, `"code":"internal"`)
	require.NotContains(t, body, "secret")
	require.Contains(t, log.String(), "secret of the house")
	require.Contains(t, log.String(), "host_test.go", "with its stack")

	response, err := r.client.Get(r.url + "/late")
	require.NoError(t, err)
	defer response.Body.Close()
	_, err = io.ReadAll(response.Body)
	require.Error(t, err, "half an answer does not look whole")
	status, _, _ = r.get("/healthz")
	require.Equal(t, 200, status)
}

func TestBrowsersOfOtherOriginsAreRefused(t *testing.T) {
	var j journal
	r := run(t, host.Config{}, &part{name: "a", journal: &j, mount: handle("POST /x", nil2)}).started()
	status, body, _ := r.do(http.MethodPost, "/x", http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"https://evil.example"}})
	require.Equal(t, 403, status)
	require.Contains(t, body, `"code":"cross_origin"`)
	status, _, _ = r.do(http.MethodPost, "/x", nil)
	require.Equal(t, 200, status)
}

func TestTooLargeAHeadIsRefused(t *testing.T) {
	r := run(t, host.Config{MaxHeaderBytes: 4 << 10}).started()
	status, _, _ := r.do(http.MethodGet, "/healthz", http.Header{"X-Long": {strings.Repeat("a", 16<<10)}})
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, status)
}

func TestASlowHeadIsCutOff(t *testing.T) {
	r := run(t, host.Config{ReadHeaderTimeout: 20 * time.Millisecond}).started()
	conn, err := net.Dial("tcp", r.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /healthz HTTP/1.1\r\n") // which may be too late already
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	read, err := bufio.NewReader(conn).ReadString('\n')
	require.Error(t, err)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Empty(t, read)
}

func TestMetrics(t *testing.T) {
	var j journal
	metrics, err := host.NewMetrics()
	require.NoError(t, err)
	defer metrics.Close(context.Background())
	r := run(t, host.Config{Metrics: metrics}, &part{name: "a", journal: &j, mount: handle("GET /a/{id}", nil2)}).started()
	counter, err := metrics.MeterProvider().Meter("test").Int64Counter("bannou.test.things")
	require.NoError(t, err)
	counter.Add(t.Context(), 3)
	r.get("/a/1")
	r.get("/a/2")
	r.do("BREW", "/a/2", nil)
	_, body, _ := r.get("/metrics")
	require.Contains(t, body, "bannou_test_things_total 3")
	require.Regexp(t, `http_server_request_duration_seconds_count\{[^}]*http_route="GET /a/\{id\}"[^}]*\} 2`, body)
	require.Contains(t, body, "_OTHER")
	require.NotContains(t, body, "BREW")
	require.Contains(t, body, "go_goroutines")
	require.Contains(t, body, "process_resident_memory_bytes")
}

func TestTraceContextReachesHandlers(t *testing.T) {
	var j journal
	seen := make(chan string, 1)
	r := run(t, host.Config{}, &part{name: "a", journal: &j, mount: handle("GET /x", func(_ http.ResponseWriter, q *http.Request) {
		seen <- traceID(q.Context())
	})}).started()
	r.do(http.MethodGet, "/x", http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}})
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", <-seen)
}

func TestOneDocumentForAllServices(t *testing.T) {
	var j journal
	shared := "components: {schemas: {Same: {type: object, x-go-type: x.Y}, %s: {$ref: '../problem/openapi.yaml#/components/schemas/Problem'}}}\n"
	r := run(t, host.Config{Version: "1.2.3"},
		&part{name: "a", journal: &j, openAPI: "paths: {/a: {post: {}}}\n" + fmt.Sprintf(shared, "A")},
		&part{name: "b", journal: &j, openAPI: "paths: {/b: {post: {}}}\n" + fmt.Sprintf(shared, "B")},
		&part{name: "none", journal: &j}).started()
	status, body, _ := r.get("/openapi.yaml")
	require.Equal(t, 200, status)
	for _, want := range []string{"/a:", "/b:", "1.2.3", "#/components/schemas/Problem", "Problem:"} {
		require.Contains(t, body, want)
	}
	require.NotContains(t, body, "../problem")
	require.NotContains(t, body, "x-go-type")

	clash := run(t, host.Config{}, &part{name: "a", journal: &j, openAPI: "components: {schemas: {X: {type: object}}}"},
		&part{name: "b", journal: &j, openAPI: "components: {schemas: {X: {type: string}}}"}).started()
	status, _, _ = clash.get("/openapi.yaml")
	require.Equal(t, 500, status)
}

// Calls within the process are served as others are, and are not counted: what causes them is.
func TestItServesWithinTheProcess(t *testing.T) {
	var j journal
	var r *running
	underWay := -1
	r = run(t, host.Config{}, &part{name: "a", journal: &j, mount: handle("GET /x", func(http.ResponseWriter, *http.Request) { underWay = r.InFlight() })}).started()
	for want, h := range map[int]http.Handler{0: r.Local(), 1: r.Handler()} {
		request, err := http.NewRequest(http.MethodGet, "/x", nil)
		require.NoError(t, err)
		w := &plainWriter{header: http.Header{}}
		h.ServeHTTP(w, request)
		require.NotEmpty(t, w.header.Get("X-Request-Id"))
		require.Equal(t, want, underWay)
	}
}

// A service whose clients call over connections of their own has them counted.
func TestRequestsOverConnectionsAreCounted(t *testing.T) {
	var j journal
	r := run(t, host.Config{}, &busy{part{name: "a", journal: &j}}, &part{name: "b", journal: &j}).started()
	require.Equal(t, 7, r.InFlight())
}

type busy struct{ part }

func (*busy) InFlight() int { return 7 }

type plainWriter struct {
	header http.Header
	bytes.Buffer
}

func (p *plainWriter) Header() http.Header { return p.header }
func (p *plainWriter) WriteHeader(int)     {}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A middleware sees the request as the host prepared it, and its handler's answer is logged and counted as ever.
func TestMiddlewareGoesAroundTheServices(t *testing.T) {
	h, err := host.New(host.Config{Middleware: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Seen", host.RequestID(r.Context()))
			next.ServeHTTP(w, r)
		})
	}})
	require.NoError(t, err)
	rec := httptest.NewRecorder()
	h.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil))
	require.Equal(t, http.StatusOK, rec.Code)
	require.NotEmpty(t, rec.Header().Get("X-Seen"))
	require.Equal(t, rec.Header().Get("X-Request-Id"), rec.Header().Get("X-Seen"))
}
