package auth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/auth"
	"github.com/bannou-mesh/bannou/services/host"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type object = map[string]any

const password = "correct horse battery"

// accounts are the accounts service, in a map.
type accounts struct {
	mu    sync.Mutex
	byID  map[string]auth.Account
	asked int
	lost  error // of the answer to Create, which is done
}

func (a *accounts) Create(_ context.Context, v auth.Account) (auth.Account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.byID {
		if strings.EqualFold(o.Email, v.Email) {
			return auth.Account{}, auth.ErrTaken
		}
	}
	v.Roles, v.Version = []string{"user"}, 1
	a.byID[v.ID] = v
	return v, a.lost
}

func (a *accounts) ByEmail(_ context.Context, email string) (auth.Account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	for _, o := range a.byID {
		if strings.EqualFold(o.Email, email) {
			return o, nil
		}
	}
	return auth.Account{}, auth.ErrNoAccount
}

func (a *accounts) Get(_ context.Context, id string) (auth.Account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v, found := a.byID[id]
	if !found {
		return auth.Account{}, auth.ErrNoAccount
	}
	return v, nil
}

// count is how often an account was looked for by its address.
func (a *accounts) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

// clock is a clock that is set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// world is what the nodes of a test share: stores, a bus, accounts, a clock, a log; and what the bus has told.
type world struct {
	t        testing.TB
	factory  *state.Factory
	driver   bus.Driver
	bus      *bus.Bus // to publish, and to hear
	accounts *accounts
	clock    *clock
	log      *lockedBuffer

	mu    sync.Mutex
	heard []bus.Event
}

func newWorld(t testing.TB) *world {
	t.Helper()
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	factory, err := state.NewFactory([]state.StoreConfig{
		{Name: auth.SessionStore, Backend: "memory"}, {Name: auth.CredentialStore, Backend: "sqlite"}, {Name: auth.KeyStore, Backend: "sqlite"},
	}, []state.Driver{sqlite, memorystate.New()}, state.Options{})
	require.NoError(t, err)
	w := &world{t: t, factory: factory, driver: memorybus.New(memorybus.Config{}), accounts: &accounts{byID: map[string]auth.Account{}},
		clock: &clock{at: time.Now()}, log: new(lockedBuffer)}
	w.bus, err = bus.New(w.driver, bus.Config{AppID: "test"})
	require.NoError(t, err)
	hear[events.SessionUpdatedEvent](w, events.TopicSessionUpdated)
	hear[events.SessionInvalidatedEvent](w, events.TopicSessionInvalidated)
	hear[events.PasswordResetRequestedEvent](w, events.TopicPasswordResetRequested)
	t.Cleanup(func() {
		require.NoError(t, w.driver.Close(context.Background()))
		require.NoError(t, factory.Close())
	})
	w.run(w.bus)
	return w
}

// run runs a bus until the test ends.
func (w *world) run(b *bus.Bus) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	<-b.Running()
	w.t.Cleanup(func() { cancel(); require.NoError(w.t, <-done) })
}

func hear[E any, P interface {
	*E
	bus.Event
}](w *world, topic string) {
	require.NoError(w.t, bus.Handle(w.bus, topic, "test", func(_ context.Context, e *E) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.heard = append(w.heard, P(e))
		return nil
	}, bus.SubscriptionOptions{}))
}

// hears waits until an event of the type was told that fits, and returns it.
func hears[P bus.Event](w *world, fits func(P) bool) P {
	w.t.Helper()
	var found P
	require.Eventually(w.t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, e := range w.heard {
			if p, is := e.(P); is && fits(p) {
				found = p
				return true
			}
		}
		return false
	}, 20*time.Second, time.Millisecond)
	return found
}

// invalidated waits for the end of a session to be told.
func (w *world) invalidated(sessionID string, reason events.SessionInvalidatedReason) {
	w.t.Helper()
	e := hears(w, func(e *events.SessionInvalidatedEvent) bool {
		return len(e.SessionIDs) > 0 && contains(e.SessionIDs, sessionID)
	})
	require.Equal(w.t, reason, e.Reason)
	require.True(w.t, e.DisconnectClients)
}

func contains(all []string, one string) bool {
	for _, s := range all {
		if s == one {
			return true
		}
	}
	return false
}

// node is the auth service on a host, as a caller sees it.
type node struct {
	*world
	url     string
	client  *http.Client
	metrics *metric.ManualReader
}

// cheap is a password hash that costs nothing.
var cheap = auth.Hashing{MemoryKiB: 8, Iterations: 1, Concurrency: 2}

func start(t testing.TB, cfg auth.Config) *node {
	t.Helper()
	return newWorld(t).start(cfg)
}

func (w *world) start(cfg auth.Config) *node {
	t := w.t
	n := &node{world: w, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}, metrics: metric.NewManualReader()}
	b, err := bus.New(w.driver, bus.Config{AppID: "auth"})
	require.NoError(t, err)
	if cfg.Hashing.MemoryKiB == 0 {
		cfg.Hashing = cheap
	}
	logger := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.Factory, cfg.Bus, cfg.Accounts, cfg.Now, cfg.Logger = w.factory, b, w.accounts, w.clock.now, logger
	cfg.MeterProvider = metric.NewMeterProvider(metric.WithReader(n.metrics))
	service, err := auth.New(cfg)
	require.NoError(t, err)
	h, err := host.New(host.Config{Listen: "127.0.0.1:0", Logger: logger})
	require.NoError(t, err)
	require.NoError(t, h.Add(service))
	w.run(b)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() { n.client.CloseIdleConnections(); cancel(); require.NoError(t, <-done) })
	<-h.Started()
	n.url = "http://" + h.Addr().String()
	return n
}

// hashes is how many passwords were hashed since the node started.
func (n *node) hashes() int64 {
	n.t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(n.t, n.metrics.Collect(context.Background(), &all))
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if sum, is := m.Data.(metricdata.Sum[int64]); is && m.Name == "bannou.auth.hashes" {
				return sum.DataPoints[0].Value
			}
		}
	}
	return 0
}

// an answer is what came back.
type answer struct {
	status int
	header http.Header
	raw    string
	body   object
}

func (n *node) post(path, body string, header ...string) answer {
	n.t.Helper()
	request, err := http.NewRequestWithContext(n.t.Context(), http.MethodPost, n.url+path, bytes.NewReader([]byte(body)))
	require.NoError(n.t, err)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := n.client.Do(request)
	require.NoError(n.t, err)
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	require.NoError(n.t, err)
	a := answer{status: response.StatusCode, header: response.Header, raw: string(raw)}
	require.NoError(n.t, json.Unmarshal(raw, &a.body), "%s", raw)
	return a
}

func (n *node) must(path, body string, header ...string) object {
	n.t.Helper()
	a := n.post(path, body, header...)
	require.Equal(n.t, 200, a.status, "%s: %s", path, a.raw)
	return a.body
}

func (n *node) refused(status int, code, path, body string, header ...string) answer {
	n.t.Helper()
	a := n.post(path, body, header...)
	require.Equal(n.t, []any{status, code}, []any{a.status, a.body["code"]}, "%s: %s", path, a.raw)
	return a
}

// tokens are what a login gives.
type tokens struct{ account, session, access, refresh string }

func tokensOf(o object) tokens {
	return tokens{o["accountId"].(string), o["sessionId"].(string), o["accessToken"].(string), o["refreshToken"].(string)}
}

func (n *node) register(email string) tokens {
	n.t.Helper()
	return tokensOf(n.must("/auth/register", `{"email":"`+email+`","password":"`+password+`","displayName":"Ada"}`))
}

func loginBody(email, password string) string {
	b, _ := json.Marshal(object{"email": email, "password": password})
	return string(b)
}

func (n *node) login(email string) tokens {
	n.t.Helper()
	return tokensOf(n.must("/auth/login", loginBody(email, password)))
}

func (n *node) refresh(refresh string) tokens {
	n.t.Helper()
	return tokensOf(n.must("/auth/refresh", `{"refreshToken":"`+refresh+`"}`))
}

// valid asks whether an access token holds.
func (n *node) valid(access string) bool {
	n.t.Helper()
	body, _ := json.Marshal(object{"accessToken": access})
	a := n.post("/auth/validate", string(body))
	if a.status == 200 {
		return true
	}
	require.Equal(n.t, []any{401, "unauthorized"}, []any{a.status, a.body["code"]}, a.raw)
	return false
}

// dead requires that nothing of a session is taken any more.
func (n *node) dead(s tokens) {
	n.t.Helper()
	require.False(n.t, n.valid(s.access))
	n.refused(401, "unauthorized", "/auth/refresh", `{"refreshToken":"`+s.refresh+`"}`)
	n.refused(401, "unauthorized", "/auth/sessions/list", `{}`, "Authorization", "Bearer "+s.access)
}

func bearerOf(s tokens) []string { return []string{"Authorization", "Bearer " + s.access} }

// delete is what the accounts service does and tells.
func (w *world) delete(accountID string) {
	w.accounts.mu.Lock()
	delete(w.accounts.byID, accountID)
	w.accounts.mu.Unlock()
	_, err := w.bus.Publish(w.t.Context(), events.TopicAccountDeleted, &events.AccountDeletedEvent{AccountID: accountID})
	require.NoError(w.t, err)
}

// setRoles is what the accounts service does and tells.
func (w *world) setRoles(accountID string, roles ...string) {
	w.accounts.mu.Lock()
	a := w.accounts.byID[accountID]
	a.Roles, a.Version = roles, a.Version+1
	w.accounts.byID[accountID] = a
	w.accounts.mu.Unlock()
	_, err := w.bus.Publish(w.t.Context(), events.TopicAccountUpdated, &events.AccountUpdatedEvent{AccountID: accountID, ChangedFields: []string{"roles"}, Roles: roles})
	require.NoError(w.t, err)
}

// setEmail is what the accounts service does and tells.
func (w *world) setEmail(accountID, email string) {
	w.accounts.mu.Lock()
	a := w.accounts.byID[accountID]
	a.Email, a.Version = email, a.Version+1
	w.accounts.byID[accountID] = a
	w.accounts.mu.Unlock()
	_, err := w.bus.Publish(w.t.Context(), events.TopicAccountUpdated, &events.AccountUpdatedEvent{AccountID: accountID, ChangedFields: []string{"email"}, Email: email})
	require.NoError(w.t, err)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newID() string { return uuid.NewString() }

// privateKey is the key that signs, read where an operator could read it.
func (w *world) privateKey() ed25519.PrivateKey {
	w.t.Helper()
	store, err := state.Open[struct {
		Keys []struct {
			Seed []byte `json:"seed"`
		} `json:"keys"`
	}](w.t.Context(), w.factory, auth.KeyStore)
	require.NoError(w.t, err)
	kept, err := store.Get(w.t.Context(), "ring")
	require.NoError(w.t, err)
	return ed25519.NewKeyFromSeed(kept.Keys[0].Seed)
}

// kept is all that the stores have of an account.
func (w *world) kept(accountID string) string {
	w.t.Helper()
	all := ""
	for store, key := range map[string]string{auth.SessionStore: "account:" + accountID, auth.CredentialStore: accountID} {
		s, err := state.Open[json.RawMessage](w.t.Context(), w.factory, store)
		require.NoError(w.t, err)
		value, err := s.Get(w.t.Context(), key)
		require.NoError(w.t, err)
		all += string(value)
	}
	return all
}
