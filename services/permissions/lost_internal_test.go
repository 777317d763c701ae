package permissions

import (
	"context"
	"errors"
	"fmt"
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

// What becomes of a session between the moment a registration has read it and the moment it writes it is not lost, and is what the session is
// told last; and what another process registers in that moment reaches each session.
func TestARegistrationLosesNoWrite(t *testing.T) {
	driver := memorybus.New(memorybus.Config{})
	var before atomic.Pointer[func()]
	factory, err := state.NewFactory([]state.StoreConfig{{Name: ServiceStore, Backend: "memory"}, {Name: SessionStore, Backend: "memory"}},
		[]state.Driver{interrupted{memorystate.New(), &before}}, state.Options{})
	require.NoError(t, err)
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	var mu sync.Mutex
	told := map[string]*events.SessionCapabilitiesEvent{} // that of the highest version, as a gateway keeps it
	hear := func(_ context.Context, e *events.SessionCapabilitiesEvent) error {
		mu.Lock()
		defer mu.Unlock()
		if before := told[e.SessionID]; before == nil || e.Version > before.Version {
			told[e.SessionID] = e
		}
		return nil
	}
	require.NoError(t, bus.Handle(b, events.TopicPermissionsSessionCapabilities, "test", hear, bus.SubscriptionOptions{}))
	require.NoError(t, bus.Handle(b, events.TopicPermissionsCapabilitiesChanged, "test", func(ctx context.Context, e *events.CapabilitiesChangedEvent) error {
		var errs []error
		for _, of := range e.Sessions {
			errs = append(errs, hear(ctx, &events.SessionCapabilitiesEvent{SessionID: of.SessionID, Version: of.Version, Capabilities: e.Capabilities}))
		}
		return errors.Join(errs...)
	}, bus.SubscriptionOptions{}))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ran)
		require.NoError(t, driver.Close(context.Background()))
		require.NoError(t, factory.Close())
	})
	now := time.Now() // for good: versions are not put in order by it
	s, err := New(Config{Factory: factory, Bus: b, Now: func() time.Time { return now }})
	require.NoError(t, err)
	go func() { ran <- b.Run(ctx) }()
	<-b.Running()
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
	tells := func(id string, c capabilities) {
		t.Helper()
		require.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return told[id] != nil && capabilities(told[id].Capabilities).digest() == c.digest()
		}, 10*time.Second, time.Millisecond, "what %s is told last", id)
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
	tells(stays, user)
	tells(promoted, admin)
	tells(ended, capabilities{})
	e, err := store.Get(t.Context(), sessionKey(promoted))
	require.NoError(t, err)
	require.Equal(t, []string{"admin"}, e.Roles)

	// Another process, which has entered its registration and goes over the sessions when this one is done, or dies.
	other := func() {
		require.NoError(t, s.changeCatalogue(t.Context(), func(services map[string]registration) (bool, error) {
			services["chat"] = look("/chat")
			return true, nil
		}))
	}
	before.Store(&other)
	_, err = s.register(t.Context(), "game", look("/game2"))
	require.NoError(t, err)
	user, admin = capabilities{"game": {"POST /game2"}, "chat": {"POST /chat"}}, capabilities{"game": {"POST /game2/end"}, "chat": {"POST /chat/end"}}
	require.Equal(t, map[string]string{stays: user.digest(), promoted: admin.digest(), ended: endedDigest}, digests())
	tells(stays, user)
	tells(promoted, admin)
}
