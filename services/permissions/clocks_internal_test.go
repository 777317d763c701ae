package permissions

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

// dying is a process's way to the stores of all, and to what they keep. After some writes of sessions it takes no more, as if the process had died.
type dying struct {
	state.Engine
	left *atomic.Int64
}

func (d dying) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	if strings.HasPrefix(changes[0].Key, sessionKey("")) && d.left.Add(-1) < 0 {
		return nil, fmt.Errorf("%w: the process is dead", state.ErrUnavailable)
	}
	return d.Engine.Apply(ctx, changes)
}

// one is a driver whose stores are the same each time they are opened.
type one struct {
	state.Driver
	engines map[string]state.Engine
	left    *atomic.Int64 // nil: it does not die
}

func (d one) Open(ctx context.Context, cfg state.StoreConfig) (engine state.Engine, err error) {
	engine, known := d.engines[cfg.Name]
	if !known {
		if engine, err = d.Driver.Open(ctx, cfg); err != nil {
			return nil, err
		}
		d.engines[cfg.Name] = engine
	}
	if d.left != nil {
		engine = dying{engine, d.left}
	}
	return engine, nil
}

// What a process whose clock is an hour ahead has sent, before it died at any of its writes, keeps nobody from hearing what another one sends later.
func TestClocksAnHourApart(t *testing.T) {
	look := []events.PermissionsEndpoint{
		{Method: "POST", Path: "/game", Permissions: []events.PermissionsRequirement{{Role: "user"}}},
		{Method: "POST", Path: "/game/end", Permissions: []events.PermissionsRequirement{{Role: "admin"}}}}
	more := append(look, events.PermissionsEndpoint{Method: "POST", Path: "/game/win", Permissions: []events.PermissionsRequirement{{Role: "user"}}})
	for name, c := range map[string]struct {
		writes int64 // of sessions
		make   func(t *testing.T, s *Service) error
	}{
		"a role": {2, func(t *testing.T, s *Service) error {
			return s.updated(t.Context(), &events.SessionUpdatedEvent{SessionID: "x", AccountID: "x", Roles: []string{"admin"}, Version: 2})
		}},
		"a registration": {2, func(t *testing.T, s *Service) error {
			_, err := s.register(t.Context(), "game", registration{At: s.cfg.Now(), Endpoints: more})
			return err
		}},
	} {
		for writes := range c.writes + 1 {
			t.Run(fmt.Sprintf("%s, dead after %d writes", name, writes), func(t *testing.T) {
				engines, left := map[string]state.Engine{}, new(atomic.Int64)
				left.Store(writes)
				broker := memorybus.New(memorybus.Config{})
				here := listen(t, broker, one{memorystate.New(), engines, nil}, time.Now)
				fill(t, here.Service, []string{"x", "y"}, "user")
				_, err := here.register(t.Context(), "game", registration{At: time.Now(), Endpoints: look})
				require.NoError(t, err)
				here.tells(t, "x", capabilities{"game": {"POST /game"}})

				factory, err := state.NewFactory([]state.StoreConfig{{Name: ServiceStore, Backend: "memory"}, {Name: SessionStore, Backend: "memory"}},
					[]state.Driver{one{memorystate.New(), engines, left}}, state.Options{})
				require.NoError(t, err)
				t.Cleanup(func() { require.NoError(t, factory.Close()) })
				hence := func() time.Time { return time.Now().Add(time.Hour) }
				ahead := &Service{cfg: here.cfg, index: index{factory, hence}, recomputing: make(chan struct{}, 1)}
				ahead.cfg.Factory, ahead.cfg.Now = factory, hence
				if err = c.make(t, ahead); writes < c.writes {
					require.ErrorIs(t, err, state.ErrUnavailable)
				} else {
					require.NoError(t, err)
				}

				require.NoError(t, here.end(t.Context(), "x", []string{"x"}))
				here.tells(t, "x", capabilities{})
				require.NoError(t, c.make(t, here.Service)) // what the dead one was at comes again
				here.tells(t, "x", capabilities{})
				if name == "a registration" {
					here.tells(t, "y", capabilities{"game": {"POST /game", "POST /game/win"}})
				}
			})
		}
	}
}

// What a registration would allow a session, which is told of it while its roles are taken away, is taken back: though it may call then what it might
// before.
func TestWhatIsTakenBackWhileItIsToldIsTold(t *testing.T) {
	var before atomic.Pointer[func()]
	l := listen(t, memorybus.New(memorybus.Config{}), interrupted{memorystate.New(), &before}, time.Now)
	var ids []string // of one page
	for n := 0; len(ids) < 2; n++ {
		if id := fmt.Sprint("session-", n); shardOf(id) == shardKey(7) {
			ids = append(ids, id)
		}
	}
	fill(t, l.Service, ids, "user")
	_, err := l.register(t.Context(), "game", registration{At: time.Now(), Endpoints: []events.PermissionsEndpoint{}})
	require.NoError(t, err)
	demote := func() {
		require.NoError(t, l.updated(t.Context(), &events.SessionUpdatedEvent{SessionID: ids[0], AccountID: ids[0], Roles: []string{"guest"}, Version: 2}))
	}
	before.Store(&demote)
	_, err = l.register(t.Context(), "game", registration{At: time.Now(), Endpoints: []events.PermissionsEndpoint{
		{Method: "POST", Path: "/game", Permissions: []events.PermissionsRequirement{{Role: "user"}}}}})
	require.NoError(t, err)
	require.Nil(t, before.Load(), "nothing came between")
	l.tells(t, ids[1], capabilities{"game": {"POST /game"}})
	l.tells(t, ids[0], capabilities{})
}
