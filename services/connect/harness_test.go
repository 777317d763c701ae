package connect_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/services/connect"
	"github.com/bannou-mesh/bannou/services/host"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const wait = 20 * time.Second

// world is gateways on hosts of their own over one broker and one store, and what they depend on.
type world struct {
	t      testing.TB
	broker *memorybus.Driver
	bus    *bus.Bus
	logins *logins
	mux    *http.ServeMux // the services
	nodes  []*gateway

	store   *hooked
	factory *state.Factory
	told    chan any // session.connected, .reconnected and .disconnected, as they come
}

type gateway struct {
	service *connect.Service
	url     string
	stop    func()
}

// logins are an auth service's.
type logins struct {
	mu   sync.Mutex
	list map[string]connect.Login // by access token
}

func (l *logins) Validate(_ context.Context, token string) (connect.Login, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	login, ok := l.list[token]
	if !ok {
		return connect.Login{}, connect.ErrNoSession
	}
	return login, nil
}

func (l *logins) set(token string, login connect.Login) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list[token] = login
}

// local calls handlers of this process.
type local struct{ http.Handler }

func (l local) Do(ctx context.Context, _ string, r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() { defer close(done); l.ServeHTTP(w, r.WithContext(ctx)) }()
	select {
	case <-done:
		return w.Result(), nil
	case <-ctx.Done():
		<-done
		return nil, ctx.Err()
	}
}

// hooked is a store in memory that says when something was written.
type hooked struct {
	state.Driver
	wrote atomic.Pointer[func()]
}

// afterNextWrite has f called once, after a write, which ends after it.
func (h *hooked) afterNextWrite(f func()) { h.wrote.Store(&f) }

func (h *hooked) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	engine, err := h.Driver.Open(ctx, cfg)
	return hookedEngine{engine, h}, err
}

type hookedEngine struct {
	state.Engine
	h *hooked
}

func (e hookedEngine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	outcomes, err := e.Engine.Apply(ctx, changes)
	if f := e.h.wrote.Swap(nil); f != nil {
		(*f)()
	}
	return outcomes, err
}

func start(t testing.TB, nodes int, change ...func(*connect.Config)) *world {
	t.Helper()
	w := &world{t: t, store: &hooked{Driver: memorystate.New()}, broker: memorybus.New(memorybus.Config{}), logins: &logins{list: map[string]connect.Login{}}, mux: http.NewServeMux(), told: make(chan any, 10_000)}
	var err error
	w.factory, err = state.NewFactory([]state.StoreConfig{{Name: connect.SessionStore, Backend: "memory"}}, []state.Driver{w.store}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, w.broker.Close(context.Background()))
		require.NoError(t, w.factory.Close())
	})
	w.bus = w.newBus("test")
	require.NoError(t, bus.Handle(w.bus, events.TopicSessionConnected, "test", tells[events.SessionConnectedEvent](w), bus.SubscriptionOptions{}))
	require.NoError(t, bus.Handle(w.bus, events.TopicSessionReconnected, "test", tells[events.SessionReconnectedEvent](w), bus.SubscriptionOptions{}))
	require.NoError(t, bus.Handle(w.bus, events.TopicSessionDisconnected, "test", tells[events.SessionDisconnectedEvent](w), bus.SubscriptionOptions{}))
	w.run(w.bus)
	w.mux.HandleFunc("POST /echo/say", func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rw.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		rw.Header().Set("X-Session", r.Header.Get(connect.SessionHeader))
		_, _ = rw.Write(body)
	})
	w.mux.HandleFunc("POST /echo/who", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		b, _ := json.Marshal(map[string]any{"session": r.Header.Values(connect.SessionHeader), "account": r.Header.Values(connect.AccountHeader)})
		_, _ = rw.Write(b)
	})
	for range nodes {
		w.add(change...)
	}
	return w
}

// next is what is told next.
func (w *world) next() any {
	w.t.Helper()
	select {
	case e := <-w.told:
		return e
	case <-time.After(wait):
		require.FailNow(w.t, "nobody is told")
		return nil
	}
}

func tells[E any](w *world) func(context.Context, *E) error {
	return func(_ context.Context, e *E) error { w.told <- e; return nil }
}

func (w *world) newBus(appID string) *bus.Bus {
	b, err := bus.New(w.broker, bus.Config{AppID: appID, PrefetchCount: 100})
	require.NoError(w.t, err)
	return b
}

func (w *world) run(b *bus.Bus) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	<-b.Running()
	w.t.Cleanup(func() { cancel(); require.NoError(w.t, <-done) })
}

// add starts a gateway.
func (w *world) add(change ...func(*connect.Config)) *gateway {
	b := w.newBus("connect")
	cfg := connect.Config{
		Factory: w.factory, Bus: b, Broker: w.broker, Caller: local{w.mux}, Auth: w.logins, InstanceID: uuid.NewString(),
	}
	for _, c := range change {
		c(&cfg)
	}
	service, err := connect.New(cfg)
	require.NoError(w.t, err)
	h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
	require.NoError(w.t, err)
	require.NoError(w.t, h.Add(service))
	w.run(cfg.Bus)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	n := &gateway{service: service, stop: sync.OnceFunc(func() { cancel(); require.NoError(w.t, <-done) })}
	w.t.Cleanup(n.stop)
	<-h.Started()
	require.Eventually(w.t, func() bool { return service.Ready(context.Background()) == nil }, wait, time.Millisecond)
	n.url = "http://" + h.Addr().String()
	w.nodes = append(w.nodes, n)
	return n
}

// login makes a session, and returns its access token.
func (w *world) login(roles ...string) (token string, l connect.Login) {
	l = connect.Login{AccountID: uuid.NewString(), SessionID: uuid.NewString(), Roles: roles}
	token = "token-" + l.SessionID
	w.logins.mu.Lock()
	defer w.logins.mu.Unlock()
	w.logins.list[token] = l
	return token, l
}

// allow has the permissions service say what a session may call.
func (w *world) allow(sessionID string, version int64, endpoints ...string) {
	e := &events.SessionCapabilitiesEvent{SessionID: sessionID, Version: version, Capabilities: map[string][]string{}}
	for _, endpoint := range endpoints {
		service, _, _ := strings.Cut(strings.TrimPrefix(endpoint[strings.Index(endpoint, "/"):], "/"), "/")
		e.Capabilities[service] = append(e.Capabilities[service], endpoint)
	}
	_, err := w.bus.Publish(w.t.Context(), events.TopicPermissionsSessionCapabilities, e)
	require.NoError(w.t, err)
}

// publish sends an event to a session.
func (w *world) publish(sessionID, name, body string) (id string) {
	id, err := w.bus.PublishRaw(w.t.Context(), "session."+sessionID+"."+name, []byte(body), bus.PublishOptions{})
	require.NoError(w.t, err)
	return id
}

// invalidate ends sessions.
func (w *world) invalidate(l connect.Login) {
	_, err := w.bus.Publish(w.t.Context(), events.TopicSessionInvalidated, &events.SessionInvalidatedEvent{
		AccountID: l.AccountID, SessionIDs: []string{l.SessionID}, Reason: events.SessionInvalidatedReasonLogout, DisconnectClients: true,
	})
	require.NoError(w.t, err)
}

// conn is a client that knows nothing but frames.
type conn struct {
	*websocket.Conn
	t     testing.TB
	Hello struct {
		SessionID, AccountID, InstanceID, ReconnectToken string
		Resumed                                          bool
	}
}

// dial connects by Authorization, and reads hello. Without a connection it returns the status.
func (w *world) dial(n *gateway, authorization string, query ...string) (*conn, int) {
	w.t.Helper()
	url := "ws" + strings.TrimPrefix(n.url, "http") + "/connect" + strings.Join(query, "")
	c, response, err := websocket.DefaultDialer.DialContext(w.t.Context(), url, http.Header{"Authorization": {authorization}})
	if err != nil {
		require.NotNil(w.t, response, "%v", err)
		return nil, response.StatusCode
	}
	return w.greeted(c), http.StatusSwitchingProtocols
}

func (w *world) greeted(c *websocket.Conn) *conn {
	w.t.Helper()
	w.t.Cleanup(func() { _ = c.Close() })
	v := &conn{Conn: c, t: w.t}
	m := v.read("hello")
	require.NoError(w.t, json.Unmarshal(m["hello"], &v.Hello, json.MatchCaseInsensitiveNames(true)))
	require.NotEmpty(w.t, v.Hello.ReconnectToken)
	return v
}

func (w *world) connected(n *gateway, token string) *conn {
	w.t.Helper()
	c, status := w.dial(n, "Bearer "+token)
	require.Equal(w.t, http.StatusSwitchingProtocols, status)
	return c
}

// read reads text frames until one has the member.
func (c *conn) read(member string) map[string]jsontext.Value {
	c.t.Helper()
	for {
		_ = c.SetReadDeadline(time.Now().Add(wait))
		kind, data, err := c.ReadMessage()
		require.NoError(c.t, err, "waiting for %s", member)
		if kind != websocket.TextMessage {
			continue
		}
		var m map[string]jsontext.Value
		require.NoError(c.t, json.Unmarshal(data, &m), "%s", data)
		if _, has := m[member]; has {
			return m
		}
	}
}

// readBinary reads until a binary frame comes.
func (c *conn) readBinary() connect.Response {
	c.t.Helper()
	for {
		_ = c.SetReadDeadline(time.Now().Add(wait))
		kind, data, err := c.ReadMessage()
		require.NoError(c.t, err)
		if kind == websocket.BinaryMessage {
			r, err := connect.ParseResponse(data)
			require.NoError(c.t, err)
			return r
		}
	}
}

// closed reads until the connection is closed, and returns the code.
func (c *conn) closed() int {
	c.t.Helper()
	for {
		_ = c.SetReadDeadline(time.Now().Add(wait))
		if _, _, err := c.ReadMessage(); err != nil {
			closed := new(websocket.CloseError)
			if !asClose(err, &closed) {
				return 0
			}
			return closed.Code
		}
	}
}

func asClose(err error, to **websocket.CloseError) bool {
	e, is := err.(*websocket.CloseError) //nolint:errorlint // the library returns it bare
	*to = e
	return is
}

func (c *conn) send(text string) {
	c.t.Helper()
	require.NoError(c.t, c.WriteMessage(websocket.TextMessage, []byte(text)))
}

type event struct {
	Seq  uint32 `json:"seq"`
	Name string `json:"name"`
	ID   string `json:"id"`
	Body struct {
		N int `json:"n"`
	} `json:"body"`
}

func (c *conn) event() (e event) {
	c.t.Helper()
	require.NoError(c.t, json.Unmarshal(c.read("event")["event"], &e))
	return e
}

type textEndpoint struct{ Service, Method, Path, GUID string }

func (c *conn) manifest() (version int64, list []textEndpoint) {
	c.t.Helper()
	var m struct {
		Version   int64
		Endpoints []textEndpoint
	}
	require.NoError(c.t, json.Unmarshal(c.read("manifest")["manifest"], &m, json.MatchCaseInsensitiveNames(true)))
	return m.Version, m.Endpoints
}
