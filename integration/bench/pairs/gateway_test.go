package pairs

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/services/connect"
	"github.com/bannou-mesh/bannou/services/connect/client"
)

// everybody is an auth service to which a session's id is its token.
type everybody struct{}

func (everybody) Validate(_ context.Context, token string) (connect.Login, error) {
	return connect.Login{SessionID: token, AccountID: token}, nil
}

const fanOut = 1000

// BenchmarkGateway calls the handler of BenchmarkMesh through a gateway in the same process, on a connection for each caller; the raw side
// posts to it over loopback. An event to many is published once for each of a thousand sessions; the raw side writes as much to a thousand
// WebSockets. One operation has been received by all.
func BenchmarkGateway(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(echo))
	b.Cleanup(server.Close)
	transport := mesh.NewTransport()
	b.Cleanup(transport.CloseIdleConnections)
	g := startGateway(b, newClient(b, mesh.ClientConfig{
		Directory: newDirectory(b, server), AppID: appID, Local: http.HandlerFunc(echo),
	}))
	callers := make([]*client.Client, 64)
	for i := range callers {
		callers[i] = g.dial(b)
		g.allow(b, callers[i].SessionID())
		require.NoError(b, callers[i].WaitFor(b.Context(), http.MethodPost, "/svc/echo", true))
	}
	compareCosts(b, "call", []int{1, 16, 64}, posting(&http.Client{Transport: transport}, server.URL+"/svc/echo"), func(ctx context.Context, caller int) error {
		body, err := json.Marshal(newAccount(caller))
		if err != nil {
			return err
		}
		answer, err := callers[caller].Call(ctx, http.MethodPost, "/svc/echo", body)
		if err != nil {
			return err
		}
		if answer.Code != connect.CodeOK {
			return errors.New(string(answer.Body))
		}
		return checkJSON(answer.Body, caller)
	})

	sessions := make([]*client.Client, fanOut)
	for i := range sessions {
		sessions[i] = g.dial(b)
	}
	body := []byte(`{"text":"` + text + `"}`)
	compareCosts(b, "event to 1000 sessions", []int{1}, writingToMany(b, body), func(ctx context.Context, _ int) error {
		var published []*bus.Publication
		for _, c := range sessions {
			p, err := g.bus.PublishRawAsync(ctx, "session."+c.SessionID()+".news", body, bus.PublishOptions{})
			if err != nil {
				return err
			}
			published = append(published, p)
		}
		for _, p := range published {
			if err := p.Wait(); err != nil {
				return err
			}
		}
		for _, c := range sessions {
			select {
			case <-c.Events():
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
}

type benchGateway struct {
	url string
	bus *bus.Bus
}

func startGateway(b *testing.B, caller *mesh.Client) *benchGateway {
	return startGatewayFor(b, caller, everybody{})
}

func startGatewayFor(b *testing.B, caller *mesh.Client, logins connect.Authenticator) *benchGateway {
	driver := memorybus.New(memorybus.Config{})
	factory, err := state.NewFactory([]state.StoreConfig{{Name: connect.SessionStore, Backend: "memory"}}, []state.Driver{memorystate.New()}, state.Options{})
	require.NoError(b, err)
	own, err := bus.New(driver, bus.Config{})
	require.NoError(b, err)
	service, err := connect.New(connect.Config{
		Factory: factory, Bus: own, Broker: driver, Caller: caller, Auth: logins, InstanceID: "bench", Rate: 1_000_000, Burst: 1_000_000,
	})
	require.NoError(b, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- own.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		require.NoError(b, <-ended)
		require.NoError(b, driver.Close(context.Background()))
		require.NoError(b, factory.Close())
	})
	<-own.Running()
	g := &benchGateway{url: serveHost(b, service, nil), bus: own}
	require.Eventually(b, func() bool { return service.Ready(b.Context()) == nil }, patience, time.Millisecond)
	return g
}

func (g *benchGateway) dial(b *testing.B) *client.Client {
	c, err := client.Dial(b.Context(), client.Config{URLs: []string{g.url}, AccessToken: uuid.NewString()})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, c.Close()) })
	return c
}

func (g *benchGateway) allow(b *testing.B, sessionID string) {
	_, err := g.bus.Publish(b.Context(), events.TopicPermissionsSessionCapabilities, &events.SessionCapabilitiesEvent{
		SessionID: sessionID, Version: 1, Capabilities: map[string][]string{appID: {"POST /svc/echo"}},
	})
	require.NoError(b, err)
}

// writingToMany writes a message to a thousand WebSockets, and has it read from each.
func writingToMany(b *testing.B, body []byte) call {
	accepted := make(chan *websocket.Conn, fanOut)
	upgrader := websocket.Upgrader{ReadBufferSize: 512, WriteBufferSize: 4096, WriteBufferPool: new(sync.Pool)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(w, r, nil)
		if err == nil {
			accepted <- c
		}
	}))
	b.Cleanup(server.Close)
	servers, clients := make([]*websocket.Conn, fanOut), make([]*websocket.Conn, fanOut)
	dialer := websocket.Dialer{NetDialContext: new(net.Dialer).DialContext, ReadBufferSize: 1024}
	for i := range clients {
		c, _, err := dialer.DialContext(b.Context(), "ws"+strings.TrimPrefix(server.URL, "http"), nil)
		require.NoError(b, err)
		clients[i], servers[i] = c, <-accepted
		b.Cleanup(func() { _ = c.Close(); _ = servers[i].Close() })
	}
	return func(context.Context, int) error {
		for _, c := range servers {
			if err := c.WriteMessage(websocket.TextMessage, body); err != nil {
				return err
			}
		}
		for _, c := range clients {
			if _, _, err := c.ReadMessage(); err != nil {
				return err
			}
		}
		return nil
	}
}
