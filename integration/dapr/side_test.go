package dapr_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

var binary string // built once for all tests

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(orders())
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	folder, err := os.MkdirTemp("", "bannou-dapr-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	binary = filepath.Join(folder, "bannou")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/bannou-mesh/bannou/cmd/bannou").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build bannou: %v\n%s", err, out)
		return 1
	}
	return servers.Main(m)
}

// A side is Dapr's API as one of the two serves it, with the app that it is for.
type side struct {
	t    *testing.T
	name string // dapr or facade
	url  string
	node string // of the facade, the node's own API
	app  *app
}

// wait is how long a test waits for what is to come, on a machine that is busy with other things.
const wait = time.Minute

// components are the YAML files that both sides read, on servers of their own.
func components(t *testing.T) []string {
	t.Helper()
	set := servers.All(t)
	secrets := filepath.Join(t.TempDir(), "secrets.json")
	require.NoError(t, os.WriteFile(secrets, []byte(`{"plain":"one","nested":{"deep":"two"},"number":12345678}`), 0o600))
	return []string{
		component("redis", "state.redis", "redisHost", set.Redis.Addr, "redisPassword", passwordOf(set.Redis), "redisDB", database(set.Redis)),
		component("memory", "state.in-memory"),
		mysqlComponent("mysql", set.MySQL),
		redisComponent("streams", "pubsub.redis", set.Redis) + "  - name: processingTimeout\n    value: \"500ms\"\n  - name: redeliverInterval\n    value: \"500ms\"\n",
		component("broker", "pubsub.rabbitmq", "connectionString", set.RabbitMQ.URL),
		component("local", "pubsub.in-memory"),
		component("files", "secretstores.local.file", "secretsFile", secrets),
		component("variables", "secretstores.local.env"),
	}
}

// component is the YAML document of one.
func component(name, kind string, metadata ...string) string {
	text := "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: " + name + "\nspec:\n  type: " + kind + "\n  version: v1\n  metadata:\n"
	for i := 0; i < len(metadata); i += 2 {
		text += "  - name: " + metadata[i] + "\n    value: " + strconv.Quote(metadata[i+1]) + "\n"
	}
	return text
}

// passwordOf is that of a Redis server.
func passwordOf(r *servers.RedisServer) string {
	return strings.TrimSuffix(strings.TrimPrefix(r.URL, "redis://:"), "@"+r.Addr+"/"+database(r))
}

func database(r *servers.RedisServer) string { return strconv.Itoa(r.DB) }

// newFacade starts a node that serves Dapr's API for the app.
func newFacade(t *testing.T, resources []string, a *app, flags ...string) *side {
	t.Helper()
	folder := t.TempDir()
	for i, text := range resources {
		require.NoError(t, os.WriteFile(filepath.Join(folder, strconv.Itoa(i)+".yaml"), []byte(text), 0o600))
	}
	listen, own := freeAddress(t), freeAddress(t)
	args := append([]string{
		"serve", "--listen", own, "--data-dir", t.TempDir(), "--dapr-listen", listen, "--dapr-app-id", "app", "--dapr-app-address", a.address(),
		"--dapr-resources-path", folder, "--messaging-retry-max-attempts", "1", "--messaging-retry-delay-ms", "50", "--log-level", "warn",
	}, flags...)
	cmd := exec.Command(binary, args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Env = append(os.Environ(), "FACADE_TEST=seen")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the node:\n%s", log.String())
		}
	})
	s := &side{t: t, name: "facade", url: "http://" + listen, node: "http://" + own, app: a}
	require.Eventually(t, func() bool { return s.answers(s.node+"/readyz", http.StatusOK) }, wait, 20*time.Millisecond)
	s.awaitReady()
	return s
}

// answers reports whether there is an answer with that status.
func (s *side) answers(url string, status int) bool {
	response, err := http.Get(url)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == status
}

// newDaprd starts a sidecar for the app.
func newDaprd(t *testing.T, resources []string, a *app) *side {
	t.Helper()
	_, port, err := net.SplitHostPort(a.address())
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	d := servers.NewDaprd(t, servers.DaprdOptions{AppPort: number, Resources: resources, Env: []string{"FACADE_TEST=seen"}})
	s := &side{t: t, name: "dapr", url: d.URL, app: a}
	s.awaitReady()
	return s
}

// awaitReady waits until the side is up and the app is subscribed.
func (s *side) awaitReady() {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		path := "/v1.0/metadata"
		if s.app.expected() == 0 {
			path = "/v1.0/healthz" // it is asked for no token
			if s.app.elsewhere != "" {
				path += "/outbound" // that app may wait for this side before it listens
			}
		}
		response, err := http.Get(s.url + path)
		if err != nil {
			return false
		}
		defer func() { _ = response.Body.Close() }()
		if s.app.expected() == 0 {
			return response.StatusCode == http.StatusNoContent
		}
		var m struct {
			Subscriptions []jsontext.Value `json:"subscriptions"`
		}
		return json.UnmarshalRead(response.Body, &m) == nil && len(m.Subscriptions) >= s.app.expected()
	}, wait, 20*time.Millisecond)
}

// freeAddress is one on which nobody listens, below the ports that outgoing connections are given.
func freeAddress(t *testing.T) string {
	t.Helper()
	for port := 20000 + os.Getpid()%7000; ; port++ {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil && !taken(port) {
			require.NoError(t, l.Close())
			return l.Addr().String()
		} else if err == nil {
			_ = l.Close()
		}
	}
}

var given sync.Map // ports that this process gave out

func taken(port int) bool { _, before := given.LoadOrStore(port, true); return before }

// call makes a request, and returns the answer in one line: its status, and its body where it has one.
func (s *side) call(method, path, body string, headers ...string) string {
	s.t.Helper()
	status, _, answer := s.exchange(method, path, body, headers...)
	return strings.TrimSpace(strconv.Itoa(status) + " " + answer)
}

// code is call, with only the errorCode of a refusal's body.
func (s *side) code(method, path, body string, headers ...string) string {
	s.t.Helper()
	status, _, answer := s.exchange(method, path, body, headers...)
	var refusal struct {
		ErrorCode string `json:"errorCode"`
	}
	_ = json.Unmarshal([]byte(answer), &refusal)
	return strings.TrimSpace(strconv.Itoa(status) + " " + refusal.ErrorCode)
}

func (s *side) exchange(method, path, body string, headers ...string) (int, http.Header, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), wait)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	require.NoError(s.t, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(s.t, err)
	answer, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	require.NoError(s.t, response.Body.Close())
	return response.StatusCode, response.Header, string(answer)
}

// etag is that of a key.
func (s *side) etag(store, key string) string {
	_, h, _ := s.exchange("GET", "/v1.0/state/"+store+"/"+key, "")
	return h.Get("Etag")
}

// An app is a program with Dapr's SDK, reduced to what the API sees of it.
type app struct {
	server        *httptest.Server
	subscriptions string
	elsewhere     string // where the app is instead; empty: it is server

	mu   sync.Mutex
	got  map[string][]string // bodies by path
	news chan struct{}       // closed, and made anew, at each delivery
}

// newApp starts an app. An event is answered as its data says: {"answer": "RETRY"}, or {"status": 500}; {"once": true} only the first time.
func newApp(t *testing.T, subscriptions string) *app {
	t.Helper()
	a := &app{subscriptions: subscriptions, got: map[string][]string{}, news: make(chan struct{})}
	a.server = httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(a.server.Close)
	return a
}

func (a *app) address() string {
	if a.elsewhere != "" {
		return a.elsewhere
	}
	return strings.TrimPrefix(a.server.URL, "http://")
}

// expected is how many subscriptions the app has.
func (a *app) expected() int { return strings.Count(a.subscriptions, `"topic"`) }

func (a *app) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	switch {
	case r.URL.Path == "/dapr/subscribe":
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, a.subscriptions)
	case strings.HasPrefix(r.URL.Path, "/on/"):
		first := a.note(r.URL.Path, string(body))
		a.answer(w, body, first)
	case r.URL.Path == "/teapot":
		w.Header().Set("X-App", r.Method+" "+r.URL.RawQuery)
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(body)
	default:
		http.NotFound(w, r)
	}
}

func (a *app) answer(w http.ResponseWriter, body []byte, first bool) {
	var e struct {
		Data struct {
			Answer string `json:"answer"`
			Status int    `json:"status"`
			Once   bool   `json:"once"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &e) != nil || e.Data.Once && !first {
		return
	}
	if e.Data.Status != 0 {
		w.WriteHeader(e.Data.Status)
	}
	if e.Data.Answer != "" {
		_, _ = fmt.Fprintf(w, `{"status":%q}`, e.Data.Answer)
	}
}

// note keeps a delivery, and reports whether it is the first of its body.
func (a *app) note(path, body string) (first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	first = true
	for _, before := range a.got[path] {
		first = first && member(before, "id") != member(body, "id")
	}
	a.got[path] = append(a.got[path], body)
	close(a.news)
	a.news = make(chan struct{})
	return first
}

// deliveries waits for n deliveries to a path of events whose data has the mark, or until the time is over, and returns what came.
func (a *app) deliveries(path, mark string, n int, within time.Duration) []string {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for {
		a.mu.Lock()
		var found []string
		for _, body := range a.got[path] {
			if strings.Contains(body, mark) {
				found = append(found, body)
			}
		}
		news := a.news
		a.mu.Unlock()
		if len(found) >= n {
			return found
		}
		select {
		case <-news:
		case <-timer.C:
			return found
		}
	}
}

// member is a member of an envelope as it is written.
func member(envelope, name string) string {
	var e map[string]jsontext.Value
	_ = json.Unmarshal([]byte(envelope), &e)
	return string(e[name])
}

// members are several of them in one line.
func members(envelope string, names ...string) string {
	values := make([]string, len(names))
	for i, name := range names {
		values[i] = member(envelope, name)
	}
	return strings.Join(values, " ")
}

// listenAt listens where somebody has listened before.
func listenAt(address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(context.Background(), "tcp", address)
}
