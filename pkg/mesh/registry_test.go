package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

// announced collects what a feed carries.
type announced struct {
	mu  sync.Mutex
	all []mesh.Change
}

func listen(t testing.TB, f *meshtest.Feed) *announced {
	a := new(announced)
	stop, err := f.Watch(context.Background(), func(c mesh.Change) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.all = append(a.all, c)
	})
	require.NoError(t, err)
	t.Cleanup(stop)
	return a
}

// take returns what was announced since the last call, as "kind instance status".
func (a *announced) take() (lines []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.all {
		line := string(c.Kind)
		if c.Kind != mesh.ChangeMappings {
			line += " " + c.Endpoint.InstanceID + " " + string(c.Endpoint.Status)
		}
		lines = append(lines, line)
	}
	a.all = nil
	return lines
}

func ids(t testing.TB, r *mesh.Registry, app string, all bool) []string {
	t.Helper()
	endpoints, err := r.Endpoints(context.Background(), app, all)
	require.NoError(t, err)
	list := make([]string, 0, len(endpoints))
	for _, e := range endpoints {
		list = append(list, e.InstanceID+" "+string(e.Status))
	}
	return list
}

func TestAnInstancesLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		feed := new(meshtest.Feed)
		table := meshtest.NewTable()
		r, other := newRegistry(t, table, feed), newRegistry(t, table, feed)
		heard := listen(t, feed)
		e := endpoint("bannou", "node-1", "state")

		begin := time.Now()
		require.NoError(t, r.Register(ctx, e))
		assert.Equal(t, []string{"registered node-1 healthy"}, heard.take())

		pass(30 * time.Second)
		require.NoError(t, r.Heartbeat(ctx, e))
		assert.Empty(t, heard.take(), "a heartbeat without news is not announced")
		list, err := other.List(ctx, false)
		require.NoError(t, err)
		require.Len(t, list, 1)
		assert.True(t, list[0].RegisteredAt.Equal(begin), "a heartbeat keeps registeredAt")
		assert.True(t, list[0].LastSeen.Equal(begin.Add(30*time.Second)))

		pass(59 * time.Second)
		require.NoError(t, r.Sweep(ctx))
		assert.Equal(t, []string{"node-1 healthy"}, ids(t, r, "bannou", false))
		pass(time.Second) // quiet for 60 s
		assert.Equal(t, []string{"node-1 degraded"}, ids(t, r, "bannou", true), "true for readers before any sweep")
		for range 2 {
			require.NoError(t, r.Sweep(ctx))
			require.NoError(t, other.Sweep(ctx))
		}
		assert.Equal(t, []string{"degraded node-1 degraded"}, heard.take(), "announced once, whoever sweeps")

		require.NoError(t, r.Heartbeat(ctx, e))
		assert.Equal(t, []string{"registered node-1 healthy"}, heard.take(), "it is back")

		pass(61 * time.Second)
		require.NoError(t, r.Sweep(ctx))
		heard.take()
		pass(29 * time.Second) // quiet for 90 s
		assert.Empty(t, ids(t, r, "bannou", true))
		require.NoError(t, r.Sweep(ctx))
		require.NoError(t, other.Sweep(ctx))
		assert.Equal(t, []string{"deregistered node-1 unavailable"}, heard.take())

		pass(10 * time.Minute)
		require.NoError(t, r.Heartbeat(ctx, e))
		assert.Equal(t, []string{"registered node-1 healthy"}, heard.take(), "a heartbeat of an unknown instance registers it")
	})
}

func TestHeartbeatsThatTravelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, feed := t.Context(), new(meshtest.Feed)
		table := meshtest.NewTable()
		r := newRegistry(t, table, feed)
		heard := listen(t, feed)
		e := endpoint("bannou", "node-1")
		sent := func(ago time.Duration, load float64) {
			e.LastSeen, e.LoadPercent = time.Now().Add(-ago), load
			require.NoError(t, r.Heartbeat(ctx, e))
		}
		load := func() float64 {
			list, err := r.Endpoints(ctx, "bannou", true)
			require.NoError(t, err)
			require.Len(t, list, 1)
			return list[0].LoadPercent
		}
		sent(90*time.Second, 1)
		assert.Empty(t, ids(t, r, "bannou", true), "too old to tell anything")
		sent(80*time.Second, 2)
		assert.Equal(t, []string{"node-1 degraded"}, ids(t, r, "bannou", true))
		pass(10 * time.Second)
		_, _, err := table.Get(ctx, "service:registry:bannou:node-1")
		require.ErrorIs(t, err, mesh.ErrNotFound, "its time counts from when it was seen")
		sent(5*time.Second, 3)
		sent(6*time.Second, 4)
		assert.InDelta(t, 3, load(), 0, "older than what is known")
		sent(-time.Hour, 5)
		assert.InDelta(t, 5, load(), 0, "a clock that is ahead counts as now")
		pass(90 * time.Second)
		assert.Empty(t, ids(t, r, "bannou", true), "and does not give a longer life")

		// A probe's finding, at the time the instance was last seen, does not prolong its life.
		sent(0, 0)
		seen := e.LastSeen
		pass(50 * time.Second)
		e.Status, e.LastSeen = mesh.StatusUnavailable, seen
		require.NoError(t, r.Heartbeat(ctx, e))
		assert.Equal(t, []string{"node-1 unavailable"}, ids(t, r, "bannou", true))
		pass(40 * time.Second)
		assert.Empty(t, ids(t, r, "bannou", true))

		// A heartbeat from before the deregistration does not bring an instance back.
		e.Status = ""
		sent(0, 0)
		heard.take()
		pass(time.Second)
		gone, err := r.Deregister(ctx, "bannou", "node-1")
		require.NoError(t, err)
		assert.True(t, gone)
		sent(500*time.Millisecond, 0)
		pass(time.Second)
		e.LastSeen = time.Now().Add(-1500 * time.Millisecond)
		require.NoError(t, r.Heartbeat(ctx, e))
		assert.Empty(t, ids(t, r, "bannou", true))
		sent(0, 0)
		assert.Equal(t, []string{"node-1 healthy"}, ids(t, r, "bannou", true), "one from after it does")
		assert.Equal(t, []string{"deregistered node-1 healthy", "registered node-1 healthy"}, heard.take())
	})
}

func TestAShortHeartbeatKeepsTheRest(t *testing.T) {
	ctx := t.Context()
	r := newRegistry(t, meshtest.NewTable(), new(meshtest.Feed))
	e := endpoint("bannou", "node-1", "state")
	e.MaxConnections = 500
	require.NoError(t, r.Register(ctx, e))
	require.NoError(t, r.Heartbeat(ctx, mesh.Endpoint{AppID: "bannou", InstanceID: "node-1", LoadPercent: 40, CurrentConnections: 9}))
	list, err := r.Endpoints(ctx, "bannou", false)
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, "127.0.0.1:3500", list[0].Address())
	assert.Equal(t, []string{"state"}, list[0].Services)
	assert.Equal(t, 500, list[0].MaxConnections)
	assert.Equal(t, 9, list[0].CurrentConnections)
	err = r.Heartbeat(ctx, mesh.Endpoint{AppID: "bannou", InstanceID: "node-2", LoadPercent: 40})
	require.ErrorIs(t, err, mesh.ErrInvalid, "an instance that nobody knows has to say where it is")
	require.ErrorContains(t, err, "host")
}

func TestDeregister(t *testing.T) {
	ctx, feed := t.Context(), new(meshtest.Feed)
	r := newRegistry(t, meshtest.NewTable(), feed)
	heard := listen(t, feed)
	gone, err := r.Deregister(ctx, "bannou", "node-1")
	require.NoError(t, err)
	assert.False(t, gone)
	require.NoError(t, r.Register(ctx, endpoint("bannou", "node-1")))
	require.NoError(t, r.Register(ctx, endpoint("bannou", "node-2")))
	gone, err = r.Deregister(ctx, "bannou", "node-1")
	require.NoError(t, err)
	assert.True(t, gone)
	assert.Equal(t, []string{"node-2 healthy"}, ids(t, r, "bannou", true))
	gone, err = r.Deregister(ctx, "bannou", "node-1")
	require.NoError(t, err)
	assert.False(t, gone, "twice")
	require.NoError(t, r.Register(ctx, endpoint("bannou", "node-1")))
	assert.Equal(t, []string{"node-1 healthy", "node-2 healthy"}, ids(t, r, "bannou", true))
	assert.Equal(t, []string{"registered node-1 healthy", "registered node-2 healthy", "deregistered node-1 healthy",
		"registered node-1 healthy"}, heard.take())
}

func TestShuttingDownTakesNoNewRequests(t *testing.T) {
	ctx, feed := t.Context(), new(meshtest.Feed)
	r := newRegistry(t, meshtest.NewTable(), feed)
	heard := listen(t, feed)
	require.NoError(t, r.Register(ctx, endpoint("bannou", "node-1")))
	e := endpoint("bannou", "node-1")
	e.Status = mesh.StatusShuttingDown
	require.NoError(t, r.Heartbeat(ctx, e))
	assert.Empty(t, ids(t, r, "bannou", false))
	assert.Equal(t, []string{"node-1 shuttingDown"}, ids(t, r, "bannou", true))
	assert.Equal(t, []string{"registered node-1 healthy", "degraded node-1 shuttingDown"}, heard.take())
}

func TestConcurrentRegistrationsLoseNone(t *testing.T) {
	table, feed := busyTable{meshtest.NewTable()}, new(meshtest.Feed)
	ctx := t.Context()
	const nodes = 100
	var all sync.WaitGroup
	for i := range nodes {
		r := newRegistry(t, table, feed) // each node has its own
		all.Go(func() {
			app := fmt.Sprintf("app-%d", i%3)
			assert.NoError(t, r.Register(ctx, endpoint(app, fmt.Sprintf("node-%03d", i))))
			assert.NoError(t, r.Heartbeat(ctx, endpoint(app, fmt.Sprintf("node-%03d", i))))
		})
	}
	all.Wait()
	list, err := newRegistry(t, table, feed).List(ctx, false)
	require.NoError(t, err)
	assert.Len(t, list, nodes)
	assert.IsIncreasing(t, func() (keys []string) {
		for _, e := range list {
			keys = append(keys, e.AppID+" "+e.InstanceID)
		}
		return keys
	}())
}

// TestRegistryAgainstAModel does random things from several nodes at once, where each node has its own instances, and
// compares what all see in the end with what each did last.
func TestRegistryAgainstAModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		table, feed := busyTable{meshtest.NewTable()}, new(meshtest.Feed)
		nodes := rapid.IntRange(2, 6).Draw(rt, "nodes")
		plans := make([][]string, nodes)
		for n := range plans {
			plans[n] = rapid.SliceOfN(rapid.SampledFrom([]string{"register", "heartbeat", "deregister", "drain", "sweep", "map"}), 1, 12).Draw(rt, "plan")
		}
		var all sync.WaitGroup
		finals := make([]string, nodes)
		failed := make(chan error, nodes*12)
		var mapped sync.Map
		for n, plan := range plans {
			r := newRegistry(t, table, feed)
			all.Go(func() {
				e := endpoint(fmt.Sprintf("app-%d", n%2), fmt.Sprintf("node-%d", n))
				for _, step := range plan {
					var err error
					e.Status = ""
					switch step {
					case "register":
						err, finals[n] = r.Register(ctx, e), "healthy"
					case "heartbeat":
						err, finals[n] = r.Heartbeat(ctx, e), "healthy"
					case "drain":
						e.Status = mesh.StatusShuttingDown
						err, finals[n] = r.Heartbeat(ctx, e), "shuttingDown"
					case "deregister":
						var was bool
						was, err = r.Deregister(ctx, e.AppID, e.InstanceID)
						if err == nil && was != (finals[n] != "") {
							err = fmt.Errorf("deregister said %v, the instance was %q", was, finals[n])
						}
						finals[n] = ""
					case "sweep":
						err = r.Sweep(ctx)
					case "map":
						var m mesh.Mappings
						m, err = r.SetMappings(ctx, map[string]string{"state": e.AppID}, e.InstanceID)
						if _, twice := mapped.LoadOrStore(m.Version, true); err == nil && twice {
							err = fmt.Errorf("version %d was given twice", m.Version)
						}
					}
					if err != nil {
						failed <- err
					}
				}
			})
		}
		all.Wait()
		close(failed)
		for err := range failed {
			rt.Fatal(err)
		}
		want := map[string]string{}
		for n, final := range finals {
			if final != "" {
				want[fmt.Sprintf("node-%d", n)] = final
			}
		}
		list, err := newRegistry(t, table, feed).List(ctx, true)
		require.NoError(rt, err)
		got := map[string]string{}
		for _, e := range list {
			got[e.InstanceID] = string(e.Status)
		}
		require.Equal(rt, want, got)
	})
}

func TestKeysAreTheContracts(t *testing.T) {
	ctx := t.Context()
	table := meshtest.NewTable()
	r := newRegistry(t, table, new(meshtest.Feed))
	require.NoError(t, r.Register(ctx, endpoint("bannou", "node-1")))
	_, err := r.SetMappings(ctx, map[string]string{"game-session": "bannou-games"}, "node-1")
	require.NoError(t, err)
	for key, part := range map[string]string{
		"service:registry:bannou:node-1": `"instanceId":"node-1"`,
		"service:heartbeat:bannou":       `"instances":[{"instanceId":"node-1"`,
		"service:apps":                   `"bannou"`,
		"service:routing:game-session":   `"appId":"bannou-games"`,
		"config:current":                 `"mappings":{"game-session":"bannou-games"}`,
		"config:version":                 `1`,
		"config:history:1":               `"version":1`,
	} {
		value, _, err := table.Get(ctx, key)
		require.NoError(t, err, key)
		assert.Contains(t, string(value), part, key)
	}
}

func TestRoutingStaysWhileTheMappingStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, table := t.Context(), meshtest.NewTable()
		r := newRegistry(t, table, new(meshtest.Feed))
		_, err := r.SetMappings(ctx, map[string]string{"state": "bannou-state", "auth": "bannou-auth"}, "node-1")
		require.NoError(t, err)
		for range 100 { // 16 minutes of sweeping
			pass(10 * time.Second)
			require.NoError(t, r.Sweep(ctx))
		}
		_, _, err = table.Get(ctx, "service:routing:state")
		require.NoError(t, err)
		_, err = r.SetMappings(ctx, map[string]string{"state": "bannou-state"}, "node-1")
		require.NoError(t, err)
		_, _, err = table.Get(ctx, "service:routing:auth")
		require.ErrorIs(t, err, mesh.ErrNotFound, "what is no longer mapped is gone at once")
		pass(5 * time.Minute)
		_, _, err = table.Get(ctx, "service:routing:state")
		require.ErrorIs(t, err, mesh.ErrNotFound, "nobody sweeps")
	})
}

func TestARecordThatCannotBeReadHidesNoOther(t *testing.T) {
	ctx, table := t.Context(), meshtest.NewTable()
	r := newRegistry(t, table, new(meshtest.Feed))
	require.NoError(t, r.Register(ctx, endpoint("bannou", "node-1")))
	require.NoError(t, r.Register(ctx, endpoint("bannou", "node-2")))
	require.NoError(t, table.Put(ctx, "service:registry:bannou:node-1", []byte(`{"appId":7}`), time.Minute))
	assert.Equal(t, []string{"node-2 healthy"}, ids(t, r, "bannou", true))
	require.NoError(t, table.Put(ctx, "service:heartbeat:bannou", []byte(`[`), time.Minute))
	require.NoError(t, r.Heartbeat(ctx, endpoint("bannou", "node-1")))
	require.NoError(t, r.Heartbeat(ctx, endpoint("bannou", "node-2")))
	assert.Equal(t, []string{"node-1 healthy", "node-2 healthy"}, ids(t, r, "bannou", true), "heartbeats mend it")
}

func TestFailures(t *testing.T) {
	ctx, table, feed := t.Context(), meshtest.NewTable(), new(meshtest.Feed)
	r := newRegistry(t, table, feed)
	feed.Fail(errors.New("broker away"))
	require.NoError(t, r.Register(ctx, endpoint("bannou", "node-1")), "what was written stands")
	away := fmt.Errorf("redis: %w", mesh.ErrUnavailable)
	table.Fail(away)
	require.ErrorIs(t, r.Register(ctx, endpoint("bannou", "node-2")), mesh.ErrUnavailable)
	_, err := r.List(ctx, true)
	require.ErrorIs(t, err, mesh.ErrUnavailable)
	require.ErrorIs(t, r.Sweep(ctx), mesh.ErrUnavailable)
	_, err = r.SetMappings(ctx, nil, "")
	require.ErrorIs(t, err, mesh.ErrUnavailable)
	table.Fail(nil)
	assert.Equal(t, []string{"node-1 healthy"}, ids(t, r, "bannou", true))
	_, err = r.Endpoints(ctx, "No such", true)
	require.ErrorIs(t, err, mesh.ErrInvalid)
}

// contended is a table whose TryPut never succeeds.
type contended struct{ *meshtest.Table }

func (contended) TryPut(context.Context, string, []byte, string, time.Duration) error {
	return mesh.ErrConflict
}

func TestConflictsEndWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := newRegistry(t, contended{meshtest.NewTable()}, new(meshtest.Feed))
		err := r.Register(ctx, endpoint("bannou", "node-1"))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "conflict")
	})
}
