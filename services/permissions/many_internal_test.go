package permissions

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

// fill writes sessions with one role each, as update does.
func fill(t *testing.T, s *Service, ids []string, roles ...string) {
	t.Helper()
	store, err := state.Open[entry](t.Context(), s.cfg.Factory, SessionStore)
	require.NoError(t, err)
	index, err := state.Open[shard](t.Context(), s.cfg.Factory, SessionStore)
	require.NoError(t, err)
	shards := map[string]shard{}
	for page := range slices.Chunk(ids, state.MaxBulkKeys) {
		items := make([]state.Item[entry], len(page))
		for i, id := range page {
			items[i] = state.Item[entry]{Key: sessionKey(id), Value: entry{AccountID: id, Roles: roles, RolesVersion: 1}, Expiry: state.After(time.Hour)}
			if shards[shardOf(id)] == nil {
				shards[shardOf(id)] = shard{}
			}
			shards[shardOf(id)][id] = s.cfg.Now().Unix()
		}
		_, err := store.SaveBulk(t.Context(), items)
		require.NoError(t, err)
	}
	for key, v := range shards {
		_, err := index.Save(t.Context(), key, v)
		require.NoError(t, err)
	}
}

// many: go test ./permissions -run TestManySessions -args -many
var many = flag.Bool("many", false, "try it with 100 000 sessions")

// A registration reaches each of many sessions, also those that change while it goes over them, and forgets those that are gone.
func TestManySessions(t *testing.T) {
	sessions := 3_000
	switch {
	case *many:
		sessions = 100_000
	case testing.Short():
		sessions = 1_000
	}
	driver := memorybus.New(memorybus.Config{})
	factory, err := state.NewFactory([]state.StoreConfig{{Name: ServiceStore, Backend: "memory"}, {Name: SessionStore, Backend: "memory"}},
		[]state.Driver{memorystate.New()}, state.Options{})
	require.NoError(t, err)
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, b.Close(context.Background()))
		require.NoError(t, driver.Close(context.Background()))
		require.NoError(t, factory.Close())
	})
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	s, err := New(Config{Factory: factory, Bus: b, Now: clock})
	require.NoError(t, err)
	ids := make([]string, sessions)
	for i := range ids {
		ids[i] = fmt.Sprintf("session-%d", i)
	}
	fill(t, s, ids, "user")
	var gone []string
	store, err := state.Open[entry](t.Context(), factory, SessionStore)
	require.NoError(t, err)
	for i := 7; i < sessions; i += 1000 {
		_, err := store.Delete(t.Context(), sessionKey(ids[i]))
		require.NoError(t, err)
		gone = append(gone, ids[i])
	}
	mu.Lock()
	now = now.Add(2 * indexPatience)
	mu.Unlock()

	game := registration{At: clock(), Endpoints: []events.PermissionsEndpoint{
		{Method: "POST", Path: "/game/look", Permissions: []events.PermissionsRequirement{{Role: "user"}}},
		{Method: "POST", Path: "/game/end", Permissions: []events.PermissionsRequirement{{Role: "admin"}}}}}
	var changing sync.WaitGroup
	changed := map[string]bool{}
	for i := 3; i < sessions; i += sessions / 50 {
		changed[ids[i]] = true
	}
	changing.Go(func() {
		for id := range changed {
			require.NoError(t, s.updated(t.Context(), &events.SessionUpdatedEvent{SessionID: id, AccountID: id, Roles: []string{"admin"}, Version: 2}))
		}
	})
	begin := time.Now()
	sent, err := s.register(t.Context(), "game", game)
	require.NoError(t, err)
	t.Logf("%d sessions in %s", sent, time.Since(begin))
	changing.Wait()
	require.LessOrEqual(t, sent, sessions-len(gone)+len(changed)) // one that changed meanwhile may have been sent again
	require.GreaterOrEqual(t, sent, sessions-len(gone)-len(changed))
	user, admin := capabilities{"game": {"POST /game/look"}}.digest(), capabilities{"game": {"POST /game/end"}}.digest()
	for page := range slices.Chunk(ids, state.MaxBulkKeys) {
		keys := make([]string, len(page))
		for i, id := range page {
			keys[i] = sessionKey(id)
		}
		entries, err := store.GetBulk(t.Context(), keys)
		require.NoError(t, err)
		for i, e := range entries {
			switch {
			case changed[page[i]]:
				require.Equal(t, admin, e.Value.Digest)
			case e.Found:
				require.Equal(t, user, e.Value.Digest)
			default:
				require.Contains(t, gone, page[i])
			}
		}
	}
	left := 0
	require.NoError(t, s.index.shards(t.Context(), func(some []state.Entry[shard]) error {
		for _, entry := range some {
			left += len(entry.Value)
		}
		return nil
	}))
	require.Equal(t, sessions-len(gone), left)
	sent, err = s.register(t.Context(), "game", game)
	require.NoError(t, err)
	require.Zero(t, sent, "nothing has changed")
}

// A session is in the index before anything is written of it, and one that comes back is not taken out as gone.
func TestTheIndexMissesNone(t *testing.T) {
	factory, err := state.NewFactory([]state.StoreConfig{{Name: SessionStore, Backend: "memory"}}, []state.Driver{memorystate.New()}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, factory.Close()) })
	now := time.Now()
	x := index{factory, func() time.Time { return now }}
	require.NoError(t, x.enter(t.Context(), "a"))
	read := func() shard {
		store, err := state.Open[shard](t.Context(), factory, SessionStore)
		require.NoError(t, err)
		v, err := store.Get(t.Context(), shardOf("a"))
		require.NoError(t, err)
		return v
	}
	seen := read()
	require.NoError(t, x.leave(t.Context(), shardOf("a"), seen))
	require.Contains(t, read(), "a", "it is on its way")
	now = now.Add(2 * indexPatience)
	require.NoError(t, x.enter(t.Context(), "a"))
	require.NoError(t, x.leave(t.Context(), shardOf("a"), seen))
	require.Contains(t, read(), "a", "it came back after it was seen to be gone")
	seen, now = read(), now.Add(2*indexPatience)
	require.NoError(t, x.leave(t.Context(), shardOf("a"), seen))
	require.NotContains(t, read(), "a")
}
