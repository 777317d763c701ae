package registrar_test

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/registrar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const document = `
info: {version: 1.2.3}
paths:
  /game/join:
    parameters: []
    post:
      x-permissions: [{role: user, states: {lobby: open}}, {role: admin}]
    get: {}
  /game/end:
    post:
      x-permissions: []
`

type service struct {
	host.Base
	document string
	name     string // empty: "game"
}

func (s service) Name() string    { return cmp.Or(s.name, "game") }
func (s service) OpenAPI() []byte { return []byte(s.document) }

func TestServicesAreRegisteredAsTheirDocumentsSay(t *testing.T) {
	b, err := bus.New(memorybus.New(memorybus.Config{}), bus.Config{})
	require.NoError(t, err)
	heard := make(chan *events.PermissionsServiceRegisteredEvent, 10)
	require.NoError(t, bus.Handle(b, events.TopicPermissionsServiceRegistered, "test", func(_ context.Context, e *events.PermissionsServiceRegisteredEvent) error {
		heard <- e
		return nil
	}, bus.SubscriptionOptions{}))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	<-b.Running()
	defer func() { stop(); require.NoError(t, <-done) }()

	r, err := registrar.New(registrar.Config{Bus: b, AppID: "games"})
	require.NoError(t, err)
	require.NoError(t, r.Add(service{document: "paths: {/x: {post: {}}}"})) // says nothing
	require.NoError(t, r.Add(service{}))
	require.NoError(t, r.Add(service{document: document}))
	require.Error(t, r.Add(service{document: "paths: {/x: {post: {x-permissions: user}}}"}))
	require.NoError(t, r.Start(t.Context()))
	e := <-heard
	require.NoError(t, r.Stop(t.Context()))
	require.Equal(t, []string{"game", "games", "1.2.3"}, []string{e.ServiceName, e.AppID, e.Version})
	require.Equal(t, []events.PermissionsEndpoint{
		{Method: "POST", Path: "/game/end", Permissions: []events.PermissionsRequirement{}},
		{Method: "GET", Path: "/game/join", Permissions: []events.PermissionsRequirement{}},
		{Method: "POST", Path: "/game/join", Permissions: []events.PermissionsRequirement{{Role: "user", States: map[string]string{"lobby": "open"}}, {Role: "admin"}}},
	}, e.Endpoints)
	require.Empty(t, heard)
}

// A picky broker does not have the events of one service until it is told to.
type picky struct {
	bus.Driver
	refuses string
	taken   chan struct{} // closed: it has them all
}

func (p picky) Publish(ctx context.Context, m *bus.Message) error {
	select {
	case <-p.taken:
	default:
		if m.Headers[bus.HeaderPartitionKey] == p.refuses {
			return bus.ErrUnavailable
		}
	}
	return p.Driver.Publish(ctx, m)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A service that cannot be registered is told of, and holds up none of the others. One that never can be is given up.
func TestAServiceThatCannotBeRegistered(t *testing.T) {
	driver := picky{memorybus.New(memorybus.Config{}), "first", make(chan struct{})}
	b, err := bus.New(driver, bus.Config{MaxBodyBytes: 1200})
	require.NoError(t, err)
	heard := make(chan string, 10)
	require.NoError(t, bus.Handle(b, events.TopicPermissionsServiceRegistered, "test", func(_ context.Context, e *events.PermissionsServiceRegisteredEvent) error {
		heard <- e.ServiceName
		return nil
	}, bus.SubscriptionOptions{}))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- b.Run(ctx) }()
	<-b.Running()

	var log lockedBuffer
	r, err := registrar.New(registrar.Config{Bus: b, AppID: "games", Retry: time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	require.NoError(t, r.Add(service{name: "first", document: document}))
	require.NoError(t, r.Add(service{name: "huge", document: strings.Replace(document, "/game/end", "/"+strings.Repeat("x", 1000), 1)}))
	require.NoError(t, r.Add(service{name: "last", document: document}))
	h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	require.NoError(t, h.Add(r))
	go func() { done <- h.Run(ctx) }()
	defer func() { stop(); require.NoError(t, <-done); require.NoError(t, <-done) }()
	<-h.Started()
	next := func() string {
		select {
		case name := <-heard:
			return name
		case <-time.After(20 * time.Second):
			return "nobody"
		}
	}
	require.Equal(t, "last", next())
	ready := func(parts ...string) {
		t.Helper()
		require.Eventually(t, func() bool {
			resp, err := http.Get("http://" + h.Addr().String() + "/readyz")
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			for _, part := range parts {
				if !strings.Contains(string(body), part) {
					return false
				}
			}
			return err == nil && resp.StatusCode == http.StatusOK
		}, 20*time.Second, 5*time.Millisecond)
	}
	defer http.DefaultClient.CloseIdleConnections()
	ready(`"degraded"`, "the endpoints of first are not registered", "the endpoints of huge are not registered")
	close(driver.taken)
	require.Equal(t, "first", next())
	ready(`"error":"the endpoints of huge are not registered`)
	require.Equal(t, 1, strings.Count(log.String(), "level=WARN"), "%s", &log)
	require.Equal(t, 1, strings.Count(log.String(), "level=ERROR"), "%s", &log)
}
