package permissions

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

// interrupted is a store in which something else happens just before several sessions are written at once.
type interrupted struct {
	state.Driver
	before *atomic.Pointer[func()]
}

func (d interrupted) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	engine, err := d.Driver.Open(ctx, cfg)
	return interruptedEngine{engine, d.before}, err
}

type interruptedEngine struct {
	state.Engine
	before *atomic.Pointer[func()]
}

func (e interruptedEngine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	if len(changes) > 1 && strings.HasPrefix(changes[0].Key, sessionKey("")) {
		if before := e.before.Swap(nil); before != nil {
			(*before)()
		}
	}
	return e.Engine.Apply(ctx, changes)
}

// heardLast is the digest of what each session may call, of the highest version that was heard.
type heardLast map[string]struct {
	version int64
	digest  string
}

func (h heardLast) hear(sessionID string, version int64, c capabilities) {
	v := h[sessionID]
	if version > v.version {
		v.version, v.digest = version, c.digest()
		h[sessionID] = v
	}
}

// listened is a service on a broker, and who hears of what sessions may call.
type listened struct {
	*Service
	mu     sync.Mutex
	holder heardLast // as a gateway keeps it
	other  heardLast // who listens for each session alone
}

func listen(t *testing.T, driver bus.Driver, stores state.Driver, now func() time.Time) *listened {
	t.Helper()
	factory, err := state.NewFactory([]state.StoreConfig{{Name: ServiceStore, Backend: "memory"}, {Name: SessionStore, Backend: "memory"}},
		[]state.Driver{stores}, state.Options{})
	require.NoError(t, err)
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	l := &listened{holder: heardLast{}, other: heardLast{}}
	require.NoError(t, bus.Handle(b, events.TopicPermissionsSessionCapabilities, "test", func(_ context.Context, e *events.SessionCapabilitiesEvent) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.holder.hear(e.SessionID, e.Version, e.Capabilities)
		l.other.hear(e.SessionID, e.Version, e.Capabilities)
		return nil
	}, bus.SubscriptionOptions{}))
	require.NoError(t, bus.Handle(b, events.TopicPermissionsCapabilitiesChanged, "test", func(_ context.Context, e *events.CapabilitiesChangedEvent) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, of := range e.Sessions {
			l.holder.hear(of.SessionID, of.Version, e.Capabilities)
		}
		return nil
	}, bus.SubscriptionOptions{}))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ran)
		require.NoError(t, driver.Close(context.Background()))
		require.NoError(t, factory.Close())
	})
	l.Service, err = New(Config{Factory: factory, Bus: b, Now: now})
	require.NoError(t, err)
	go func() { ran <- b.Run(ctx) }()
	<-b.Running()
	return l
}

// tells waits until a session was told of these last, whoever listens.
func (l *listened) tells(t *testing.T, id string, c capabilities) {
	t.Helper()
	require.Eventually(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.holder[id].digest == c.digest() && l.other[id].digest == c.digest()
	}, 60*time.Second, time.Millisecond, "what %s is told last", id)
}

// What becomes of a session between the moment a registration has read it and the moment it writes it is not lost, and is what the session is
// told last; and what another process registers in that moment reaches each session.
func TestARegistrationLosesNoWrite(t *testing.T) {
	var before atomic.Pointer[func()]
	now := time.Now() // for good: versions are not put in order by it
	l := listen(t, memorybus.New(memorybus.Config{}), interrupted{memorystate.New(), &before}, func() time.Time { return now })
	s, factory := l.Service, l.cfg.Factory
	var ids []string // of one shard, and so of one page
	for n := 0; len(ids) < 3; n++ {
		if id := fmt.Sprint("session-", n); shardOf(id) == shardKey(7) {
			ids = append(ids, id)
		}
	}
	stays, promoted, ended := ids[0], ids[1], ids[2]
	fill(t, s, ids, "user")
	store, err := state.Open[entry](t.Context(), factory, SessionStore)
	require.NoError(t, err)
	const endedDigest = "ended"
	digests := func() map[string]string {
		all := map[string]string{}
		for _, id := range ids {
			e, err := store.Get(t.Context(), sessionKey(id))
			require.NoError(t, err)
			if all[id] = e.Digest; e.Ended {
				all[id] = endedDigest
			}
		}
		return all
	}
	look := func(path string) registration {
		return registration{At: now, Endpoints: []events.PermissionsEndpoint{
			{Method: "POST", Path: path, Permissions: []events.PermissionsRequirement{{Role: "user"}}},
			{Method: "POST", Path: path + "/end", Permissions: []events.PermissionsRequirement{{Role: "admin"}}}}}
	}

	change := func() {
		require.NoError(t, s.updated(t.Context(), &events.SessionUpdatedEvent{SessionID: promoted, AccountID: promoted, Roles: []string{"admin"}, Version: 2}))
		require.NoError(t, s.end(t.Context(), ended, []string{ended}))
	}
	before.Store(&change)
	_, err = s.register(t.Context(), "game", look("/game"))
	require.NoError(t, err)
	require.Nil(t, before.Load(), "nothing came between")
	user, admin := capabilities{"game": {"POST /game"}}, capabilities{"game": {"POST /game/end"}}
	require.Equal(t, map[string]string{stays: user.digest(), promoted: admin.digest(), ended: endedDigest}, digests())
	l.tells(t, stays, user)
	l.tells(t, promoted, admin)
	l.tells(t, ended, capabilities{})
	e, err := store.Get(t.Context(), sessionKey(promoted))
	require.NoError(t, err)
	require.Equal(t, []string{"admin"}, e.Roles)

	// Another process, which has entered its registration and goes over the sessions when this one is done, or dies.
	process := func() {
		require.NoError(t, s.changeCatalogue(t.Context(), func(c *catalogue) (effect, error) {
			c.Services["chat"] = look("/chat")
			return replaced, nil
		}))
	}
	before.Store(&process)
	_, err = s.register(t.Context(), "game", look("/game2"))
	require.NoError(t, err)
	user, admin = capabilities{"game": {"POST /game2"}, "chat": {"POST /chat"}}, capabilities{"game": {"POST /game2/end"}, "chat": {"POST /chat/end"}}
	require.Equal(t, map[string]string{stays: user.digest(), promoted: admin.digest(), ended: endedDigest}, digests())
	l.tells(t, stays, user)
	l.tells(t, promoted, admin)
}

// A watched broker knows what was published to it, and may be mute: it does not take what is published to a topic.
type watched struct {
	bus.Driver
	mu     sync.Mutex
	mute   string
	topics []string // of what was begun
}

func (w *watched) Begin(ctx context.Context, message *bus.Message) func() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.topics = append(w.topics, message.RoutingKey)
	if message.RoutingKey == w.mute {
		return func() error { return fmt.Errorf("%w: it is mute", bus.ErrUnavailable) }
	}
	return w.Driver.Begin(ctx, message)
}

// Where not all that a registration tells was told, nothing is noted as told: whoever tries it again tells all of it, to those who hold
// connections and to those who listen for each session.
func TestWhatWasToldInPartIsToldAgain(t *testing.T) {
	for _, topic := range []string{events.TopicPermissionsCapabilitiesChanged, events.TopicPermissionsSessionCapabilities} {
		t.Run(topic, func(t *testing.T) {
			broker := &watched{Driver: memorybus.New(memorybus.Config{})}
			l := listen(t, broker, memorystate.New(), time.Now)
			ids := make([]string, 3)
			for i := range ids {
				ids[i] = fmt.Sprint("session-", i)
			}
			fill(t, l.Service, ids, "user")
			game := registration{At: time.Now(), Endpoints: []events.PermissionsEndpoint{
				{Method: "POST", Path: "/game", Permissions: []events.PermissionsRequirement{{Role: "user"}}}}}
			broker.mute = topic
			_, err := l.register(t.Context(), "game", game)
			require.ErrorIs(t, err, state.ErrUnavailable)
			store, err := state.Open[entry](t.Context(), l.cfg.Factory, SessionStore)
			require.NoError(t, err)
			for _, id := range ids {
				e, err := store.Get(t.Context(), sessionKey(id))
				require.NoError(t, err)
				require.Empty(t, e.Digest, "it is not noted as sent")
			}
			broker.mute = ""
			sessions, err := l.register(t.Context(), "game", game)
			require.NoError(t, err)
			require.Equal(t, len(ids), sessions)
			for _, id := range ids {
				l.tells(t, id, capabilities{"game": {"POST /game"}})
			}
		})
	}
}

// Who holds connections has been told of all sessions before the first event of one session is on its way: it would hold up the others.
func TestThoseOfManyAreToldFirst(t *testing.T) {
	broker := &watched{Driver: memorybus.New(memorybus.Config{})}
	l := listen(t, broker, memorystate.New(), time.Now)
	const sessions = 1500
	ids := make([]string, sessions)
	for i := range ids {
		ids[i] = fmt.Sprint("session-", i)
	}
	fill(t, l.Service, ids, "user")
	_, err := l.register(t.Context(), "game", registration{At: time.Now(), Endpoints: []events.PermissionsEndpoint{
		{Method: "POST", Path: "/game", Permissions: []events.PermissionsRequirement{{Role: "user"}}}}})
	require.NoError(t, err)
	first := slices.Index(broker.topics, events.TopicPermissionsSessionCapabilities)
	require.Positive(t, first)
	require.Len(t, broker.topics[first:], sessions)
	require.NotContains(t, broker.topics[first:], events.TopicPermissionsCapabilitiesChanged)
}
