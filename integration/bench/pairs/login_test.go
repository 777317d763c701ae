package pairs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/auth"
	"github.com/bannou-mesh/bannou/services/connect"
	"github.com/bannou-mesh/bannou/services/connect/client"
)

// everything is the app-id of a node with auth and the handler.
const everything = "auth"

// BenchmarkLogin logs a player in, connects with the access token, which has it validated, and calls a handler through the gateway. The raw side
// posts to the same three handlers on a bare ServeMux: login, validate, and the one that is called. Hashes of passwords are as cheap as they
// can be, since both sides make the same.
func BenchmarkLogin(b *testing.B) {
	players := newPlayers(b)
	mux := http.NewServeMux()
	require.NoError(b, players.auth.Mount(mux))
	mux.HandleFunc("POST /svc/echo", echo)
	raw := httptest.NewServer(mux)
	b.Cleanup(raw.Close)
	transport := mesh.NewTransport()
	b.Cleanup(transport.CloseIdleConnections)
	poster := poster{&http.Client{Transport: transport}}
	caller := newClient(b, mesh.ClientConfig{
		Directory: directoryOf(b, mesh.Endpoint{AppID: everything, InstanceID: "node-1", Host: "127.0.0.1", Port: 1}), AppID: everything, Local: mux,
	})
	g := startGatewayFor(b, caller, connect.NewMeshAuth(caller))
	node := serveHost(b, players.auth, nil)
	allowAll(b, g.bus)

	compareCosts(b, "log in, validate, call", []int{1, 16}, func(ctx context.Context, caller int) error {
		access, err := players.login(ctx, poster, raw.URL, caller)
		if err != nil {
			return err
		}
		if err := poster.post(ctx, raw.URL+"/auth/validate", map[string]string{"accessToken": access}, new(connect.Login)); err != nil {
			return err
		}
		return poster.post(ctx, raw.URL+"/svc/echo", newAccount(caller), new(account))
	}, func(ctx context.Context, caller int) error {
		access, err := players.login(ctx, poster, node, caller)
		if err != nil {
			return err
		}
		c, err := client.Dial(ctx, client.Config{URLs: []string{g.url}, AccessToken: access})
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.WaitFor(ctx, http.MethodPost, "/svc/echo", true); err != nil {
			return err
		}
		body, err := json.Marshal(newAccount(caller))
		if err != nil {
			return err
		}
		answer, err := c.Call(ctx, http.MethodPost, "/svc/echo", body)
		if err != nil {
			return err
		}
		if answer.Code != connect.CodeOK {
			return fmt.Errorf("the call was answered with %d: %s", answer.Code, answer.Body)
		}
		return checkJSON(answer.Body, caller)
	})
}

// allowAll has who connects told that it may call the handler, as the permissions service would.
func allowAll(b *testing.B, own *bus.Bus) {
	sub, err := bus.Subscribe(b.Context(), own, events.TopicSessionConnected, func(ctx context.Context, e *events.SessionConnectedEvent) error {
		_, err := own.Publish(ctx, events.TopicPermissionsSessionCapabilities, &events.SessionCapabilitiesEvent{
			SessionID: e.SessionID, Version: 1, Capabilities: map[string][]string{everything: {"POST /svc/echo"}},
		})
		return err
	}, bus.SubscriptionOptions{PrefetchCount: prefetch})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, sub.Close(context.Background())) })
}

// players have an account for each caller. The host that serves the service starts and stops it.
type players struct {
	auth *auth.Service
}

const playersPassword = "correct horse battery"

func newPlayers(b *testing.B) *players {
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(b.TempDir(), "auth.db")})
	require.NoError(b, err)
	factory, err := state.NewFactory([]state.StoreConfig{
		{Name: auth.SessionStore, Backend: "memory"}, {Name: auth.CredentialStore, Backend: "sqlite"}, {Name: auth.KeyStore, Backend: "sqlite"},
	}, []state.Driver{sqlite, memorystate.New()}, state.Options{})
	require.NoError(b, err)
	driver := memorybus.New(memorybus.Config{})
	own, err := bus.New(driver, bus.Config{})
	require.NoError(b, err)
	service, err := auth.New(auth.Config{
		Factory: factory, Bus: own, Accounts: &registered{byEmail: map[string]auth.Account{}}, Hashing: auth.Hashing{MemoryKiB: 64, Iterations: 1},
		Throttle: auth.Throttle{PerAccount: 1 << 30, PerAddress: 1 << 30},
	})
	require.NoError(b, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- own.Run(ctx) }()
	<-own.Running()
	b.Cleanup(func() {
		stop()
		require.NoError(b, <-ended)
		require.NoError(b, driver.Close(context.Background()))
		require.NoError(b, factory.Close())
	})
	p := &players{auth: service}
	mux := http.NewServeMux()
	require.NoError(b, service.Mount(mux))
	for caller := range 64 {
		body, err := json.Marshal(map[string]string{"email": playerEmail(caller), "password": playersPassword})
		require.NoError(b, err)
		r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/auth/register", bytes.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		require.Equal(b, http.StatusOK, w.Code, w.Body)
	}
	return p
}

func playerEmail(caller int) string { return fmt.Sprintf("player%d@example.org", caller) }

func (p *players) login(ctx context.Context, with poster, url string, caller int) (access string, err error) {
	var tokens struct {
		AccessToken string `json:"accessToken"`
	}
	err = with.post(ctx, url+"/auth/login", map[string]string{"email": playerEmail(caller), "password": playersPassword}, &tokens)
	return tokens.AccessToken, err
}

// registered are the accounts service, in a map.
type registered struct {
	mu      sync.Mutex
	byEmail map[string]auth.Account
}

func (r *registered) Create(_ context.Context, v auth.Account) (auth.Account, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v.Roles, v.Version = []string{"user"}, 1
	r.byEmail[v.Email] = v
	return v, nil
}

func (r *registered) ByEmail(_ context.Context, email string) (auth.Account, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, found := r.byEmail[email]
	if !found {
		return auth.Account{}, auth.ErrNoAccount
	}
	return v, nil
}

func (r *registered) Get(_ context.Context, id string) (auth.Account, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range r.byEmail {
		if v.ID == id {
			return v, nil
		}
	}
	return auth.Account{}, auth.ErrNoAccount
}

// A poster posts JSON.
type poster struct{ client *http.Client }

func (p poster) post(ctx context.Context, url string, body, answer any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := p.client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if raw, err = io.ReadAll(response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, raw)
	}
	return json.Unmarshal(raw, answer)
}
