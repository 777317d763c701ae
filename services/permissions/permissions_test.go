package permissions_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/services/host"
	. "github.com/bannou-mesh/bannou/services/host/hosttest"
	"github.com/bannou-mesh/bannou/services/permissions"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is permissions services on hosts of their own, and what the bus hears of sessions.
type world struct {
	t    testing.TB
	bus  *bus.Bus
	urls []string

	mu     sync.Mutex
	latest map[string]*events.SessionCapabilitiesEvent // by session: that of the highest version, as a gateway would keep it
	at     map[string]time.Time                        // when its version was heard of first
	ofOne  map[string]*events.SessionCapabilitiesEvent // the same of who listens to permissions.session-capabilities alone
	oneAt  map[string]time.Time
	count  int // of new versions
	ofMany int // of events that name several sessions
	news   chan struct{}
}

func start(t testing.TB, nodes int) *world {
	t.Helper()
	driver := memorybus.New(memorybus.Config{})
	factory, err := state.NewFactory([]state.StoreConfig{{Name: permissions.ServiceStore, Backend: "memory"}, {Name: permissions.SessionStore, Backend: "memory"}},
		[]state.Driver{memorystate.New()}, state.Options{})
	require.NoError(t, err)
	w := &world{
		t: t, latest: map[string]*events.SessionCapabilitiesEvent{}, at: map[string]time.Time{},
		ofOne: map[string]*events.SessionCapabilitiesEvent{}, oneAt: map[string]time.Time{}, news: make(chan struct{}, 1),
	}
	t.Cleanup(func() {
		require.NoError(t, driver.Close(context.Background()))
		require.NoError(t, factory.Close())
	})
	w.bus, err = bus.New(driver, bus.Config{AppID: "test", PrefetchCount: 100})
	require.NoError(t, err)
	require.NoError(t, bus.Handle(w.bus, events.TopicPermissionsSessionCapabilities, "test", w.hear, bus.SubscriptionOptions{}))
	require.NoError(t, bus.Handle(w.bus, events.TopicPermissionsCapabilitiesChanged, "test", w.hearOfMany, bus.SubscriptionOptions{}))
	w.run(w.bus)
	for range nodes {
		b, err := bus.New(driver, bus.Config{AppID: "permissions"})
		require.NoError(t, err)
		service, err := permissions.New(permissions.Config{Factory: factory, Bus: b})
		require.NoError(t, err)
		h, err := host.New(host.Config{Listen: "127.0.0.1:0"})
		require.NoError(t, err)
		require.NoError(t, h.Add(service))
		w.run(b)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- h.Run(ctx) }()
		t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
		<-h.Started()
		w.urls = append(w.urls, "http://"+h.Addr().String())
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return w
}

func (w *world) run(b *bus.Bus) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	<-b.Running()
	w.t.Cleanup(func() { cancel(); require.NoError(w.t, <-done) })
}

func (w *world) hear(_ context.Context, e *events.SessionCapabilitiesEvent) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if known := w.ofOne[e.SessionID]; known == nil || e.Version > known.Version {
		w.ofOne[e.SessionID], w.oneAt[e.SessionID] = e, time.Now()
	}
	w.keep(e)
	return nil
}

// keep is what a gateway does with what it hears; w.mu is held.
func (w *world) keep(e *events.SessionCapabilitiesEvent) {
	if known := w.latest[e.SessionID]; known == nil || e.Version > known.Version {
		w.latest[e.SessionID], w.at[e.SessionID] = e, time.Now()
		w.count++
	}
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// hearOfMany is hear for each session that an event names.
func (w *world) hearOfMany(_ context.Context, e *events.CapabilitiesChangedEvent) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, of := range e.Sessions {
		w.keep(&events.SessionCapabilitiesEvent{SessionID: of.SessionID, Version: of.Version, Capabilities: e.Capabilities})
	}
	w.ofMany++
	return nil
}

// may is what a session may call of a service, as far as was heard.
func (w *world) may(sessionID, service string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.latest[sessionID]; e != nil {
		return e.Capabilities[service]
	}
	return nil
}

// becomes waits until a session may call just these.
func (w *world) becomes(sessionID, service string, endpoints ...string) {
	w.t.Helper()
	require.Eventually(w.t, func() bool { return slices.Equal(w.may(sessionID, service), endpoints) }, 20*time.Second, time.Millisecond,
		"%s: want %q", service, endpoints)
}

func (w *world) publish(topic string, e bus.Event, key string) {
	w.t.Helper()
	_, err := w.bus.PublishWith(w.t.Context(), topic, e, bus.PublishOptions{PartitionKey: key})
	require.NoError(w.t, err)
}

func (w *world) roles(sessionID string, version int64, roles ...string) {
	w.publish(events.TopicSessionUpdated, &events.SessionUpdatedEvent{SessionID: sessionID, AccountID: sessionID, Roles: roles, Version: version,
		Reason: events.SessionUpdatedReasonRolesChanged}, sessionID)
}

func (w *world) state(sessionID, service, name string) {
	w.publish(events.TopicPermissionsSessionStateChanged, &events.SessionStateChangeEvent{SessionID: sessionID, ServiceName: service, NewState: name}, sessionID)
}

func (w *world) services(name string, endpoints ...events.PermissionsEndpoint) {
	w.publish(events.TopicPermissionsServiceRegistered, &events.PermissionsServiceRegisteredEvent{ServiceName: name, AppID: "games", Version: "1", Endpoints: endpoints}, name)
}

func endpoint(path string, requirements ...events.PermissionsRequirement) events.PermissionsEndpoint {
	return events.PermissionsEndpoint{Method: "POST", Path: path, Permissions: requirements}
}

func role(name string) events.PermissionsRequirement {
	return events.PermissionsRequirement{Role: name}
}

func in(name, service, state string) events.PermissionsRequirement {
	return events.PermissionsRequirement{Role: name, States: map[string]string{service: state}}
}

func (w *world) post(path, body string) (int, string) {
	w.t.Helper()
	response, err := http.Post(w.urls[0]+path, "application/json", bytes.NewReader([]byte(body)))
	require.NoError(w.t, err)
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	require.NoError(w.t, err)
	return response.StatusCode, string(answer)
}

func TestWhatASessionMayCall(t *testing.T) {
	w := start(t, 1)
	id := uuid.NewString()
	w.roles(id, 1, "user")
	w.services("game", endpoint("/game/join", in("user", "game", "lobby")), endpoint("/game/look", role("user"), role("admin")),
		endpoint("/game/end", role("admin")), endpoint("/game/nobody"))
	w.becomes(id, "game", "POST /game/look")
	w.state(id, "game", "lobby")
	w.becomes(id, "game", "POST /game/join", "POST /game/look")
	w.roles(id, 2, "admin")
	w.becomes(id, "game", "POST /game/end", "POST /game/look")
	w.roles(id, 1, "user") // late
	behind := uuid.NewString()
	w.publish(events.TopicSessionUpdated, &events.SessionUpdatedEvent{SessionID: behind, AccountID: id, Roles: []string{"user"}, Version: 1}, id)
	w.becomes(behind, "game", "POST /game/look") // and so what came before it was handled
	require.Equal(t, []string{"POST /game/end", "POST /game/look"}, w.may(id, "game"))
	w.roles(id, 3, "user", "admin")
	w.becomes(id, "game", "POST /game/end", "POST /game/join", "POST /game/look")
	w.state(id, "game", "")
	w.becomes(id, "game", "POST /game/end", "POST /game/look")

	w.services("game", endpoint("/game/look", role("user"))) // what it no longer names is gone
	w.becomes(id, "game", "POST /game/look")
	w.services("chat", endpoint("/chat/say", role("user")))
	w.becomes(id, "chat", "POST /chat/say")
	w.becomes(behind, "chat", "POST /chat/say")
	status, answer := w.post("/permissions/services/remove", `{"serviceName":"chat"}`)
	require.Equal(t, 200, status)
	// Two, or fewer: the registration, which was heard of before it is over, may be the one that tells them.
	require.Regexp(t, `^{"removed":true,"sessions":[012]}\s*$`, answer)
	w.becomes(behind, "chat")
	w.becomes(id, "chat")

	_, answer = w.post("/permissions/capabilities/get", `{"sessionId":"`+id+`"}`)
	var kept events.SessionCapabilitiesEvent
	require.NoError(t, json.Unmarshal([]byte(answer), &kept))
	require.Equal(t, map[string][]string{"game": {"POST /game/look"}}, kept.Capabilities)

	w.publish(events.TopicSessionInvalidated, &events.SessionInvalidatedEvent{AccountID: id, SessionIDs: []string{id}, Reason: events.SessionInvalidatedReasonLogout}, id)
	w.becomes(id, "game")
	status, _ = w.post("/permissions/capabilities/get", `{"sessionId":"`+id+`"}`)
	require.Equal(t, 404, status)
	w.roles(id, 9, "admin") // late: it is over
	w.state(id, "game", "lobby")
	w.services("game", endpoint("/game/end", role("admin")))
	other := uuid.NewString()
	w.roles(other, 1, "admin")
	w.becomes(other, "game", "POST /game/end")
	require.Empty(t, w.may(id, "game"))
}

// Who registers is told how many sessions may call something else now. While sessions are still at work with what they heard, they may be the
// ones that see the registration: so it is tried until they have settled.
func TestARegistrationIsToldHowManySessionsItConcerns(t *testing.T) {
	w := start(t, 1)
	w.roles(uuid.NewString(), 1, "user")
	w.roles(uuid.NewString(), 1, "user")
	w.roles(uuid.NewString(), 1, "admin")
	path := 0
	register := func() string {
		status, answer := w.post("/permissions/services/register", fmt.Sprintf(
			`{"serviceName":"chat","appId":"chats","version":"1","endpoints":[{"method":"POST","path":"/chat/say-%d","permissions":[{"role":"user"}]}]}`, path))
		require.Equal(t, 200, status)
		return strings.TrimSpace(answer)
	}
	require.Eventually(t, func() bool { path++; return register() == `{"sessions":2}` }, 20*time.Second, time.Millisecond)
	require.Equal(t, `{"sessions":0}`, register(), "nothing is new")
	_, answer := w.post("/permissions/services/remove", `{"serviceName":"chat"}`)
	require.JSONEq(t, `{"removed":true,"sessions":2}`, answer)
}

// What comes from a clock that is ahead keeps out nothing that comes after it.
func TestAClockThatIsAhead(t *testing.T) {
	w := start(t, 1)
	id, ahead := uuid.NewString(), time.Now().Add(1000*time.Hour)
	w.roles(id, 1, "user")
	early := &events.PermissionsServiceRegisteredEvent{ServiceName: "game", Version: "1", Endpoints: []events.PermissionsEndpoint{endpoint("/game/old", role("user"))}}
	early.Timestamp = ahead
	w.publish(events.TopicPermissionsServiceRegistered, early, "game")
	w.becomes(id, "game", "POST /game/old")
	w.services("game", endpoint("/game/new", in("user", "game", "lobby")), endpoint("/game/all", role("user")))
	w.becomes(id, "game", "POST /game/all")
	lobby := &events.SessionStateChangeEvent{SessionID: id, ServiceName: "game", NewState: "lobby"}
	lobby.Timestamp = ahead
	w.publish(events.TopicPermissionsSessionStateChanged, lobby, id)
	w.becomes(id, "game", "POST /game/all", "POST /game/new")
	w.state(id, "game", "match")
	w.becomes(id, "game", "POST /game/all")
}

func TestConnections(t *testing.T) {
	w := start(t, 1)
	w.services("game", endpoint("/game/join", in("user", "game", "lobby")), endpoint("/game/look", role("user")))
	id := uuid.NewString()
	heard := func() int { w.mu.Lock(); defer w.mu.Unlock(); return w.count }
	w.publish(events.TopicSessionConnected, &events.SessionConnectedEvent{SessionID: id, AccountID: id, Roles: []string{"user"}}, id)
	w.state(id, "game", "lobby")
	w.becomes(id, "game", "POST /game/join", "POST /game/look")
	w.publish(events.TopicSessionDisconnected, &events.SessionDisconnectedEvent{SessionID: id, AccountID: id, Reconnectable: true}, id)
	before := heard()
	w.publish(events.TopicSessionReconnected, &events.SessionReconnectedEvent{SessionID: id, AccountID: id}, id)
	require.Eventually(t, func() bool { return heard() > before }, 20*time.Second, time.Millisecond, "who holds the connection now is told")
	w.becomes(id, "game", "POST /game/join", "POST /game/look")
	w.publish(events.TopicSessionDisconnected, &events.SessionDisconnectedEvent{SessionID: id, AccountID: id}, id)
	w.becomes(id, "game", "POST /game/look")
}

// Roles, states and registrations change at once, on two nodes. In the end each session may call what its last roles and state and the
// last registration say.
func TestChangesAtOnce(t *testing.T) {
	w := start(t, 2)
	const sessions, rounds = 30, 8
	ids := make([]string, sessions)
	for i := range ids {
		ids[i] = uuid.NewString()
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for r := range rounds {
			w.services("game", endpoint(fmt.Sprintf("/game/v%d", r), role("user")), endpoint("/game/in", in("user", "game", "match")))
		}
	})
	for _, id := range ids {
		wait.Go(func() {
			for r := range rounds {
				w.roles(id, int64(r+1), map[bool]string{true: "user", false: "guest"}[r == rounds-1 || r%2 == 0])
				w.state(id, "game", fmt.Sprintf("round-%d", r))
			}
			w.state(id, "game", "match")
		})
	}
	wait.Wait()
	for _, id := range ids {
		w.becomes(id, "game", "POST /game/in", fmt.Sprintf("POST /game/v%d", rounds-1))
	}
}

func TestRefusals(t *testing.T) {
	w := start(t, 1)
	target := Target{URL: w.urls[0], Client: http.DefaultClient}
	Refusals(t, target, []Endpoint{
		{Path: "/permissions/services/register", Valid: `{"serviceName":"game","appId":"a","version":"1","endpoints":[{"method":"POST","path":"/x","permissions":[{"role":"user","states":{"a":"b"}}]}]}`,
			Required: []string{"serviceName", "endpoints"}, MaxBytes: 1 << 20,
			Members: map[string]Kind{"serviceName": String, "appId": String, "version": String, "endpoints": Array, "endpoints.method": String, "endpoints.path": String, "endpoints.permissions": Array}},
		{Path: "/permissions/services/remove", Valid: `{"serviceName":"game"}`, Required: []string{"serviceName"}, MaxBytes: 1 << 20, Members: map[string]Kind{"serviceName": String}},
		{Path: "/permissions/services/list", Valid: `{}`, MaxBytes: 1 << 20},
		{Path: "/permissions/capabilities/get", Valid: `{"sessionId":"x"}`, Status: 404, Required: []string{"sessionId"}, MaxBytes: 1 << 20, Members: map[string]Kind{"sessionId": String}},
	})
	for _, c := range []struct{ body, member string }{
		{`{"serviceName":"Game","endpoints":[]}`, "serviceName"},
		{`{"serviceName":"game","endpoints":[{"method":"post","path":"/x"}]}`, "endpoints[0].method"},
		{`{"serviceName":"game","endpoints":[{"method":"POST","path":"x"}]}`, "endpoints[0].path"},
		{`{"serviceName":"game","endpoints":[{"method":"POST","path":"/x","permissions":[{}]}]}`, "endpoints[0].permissions[0]"},
		{`{"serviceName":"game","endpoints":[` + strings.Repeat(`{},`, 1000) + `{}]}`, "endpoints"},
	} {
		target.Refuses(t, "/permissions/services/register", c.body, 400, "invalid_member", c.member)
	}
}
