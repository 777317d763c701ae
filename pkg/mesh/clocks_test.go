package mesh_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

// apart runs a test with two nodes' registries of one table, the second one's clock ahead of the first one's, and a directory that only hears.
func apart(t *testing.T, run func(t *testing.T, behind, ahead *mesh.Registry, heard *announced, d *mesh.Directory)) {
	t.Helper()
	for _, by := range []time.Duration{3 * time.Second, time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table, feed := meshtest.NewTable(), new(meshtest.Feed)
				behind, ahead := newRegistry(t, table, feed), newRegistry(t, table, feed)
				ahead.SetClock(func() time.Time { return time.Now().Add(by) })
				d := mesh.NewDirectory(behind, feed, mesh.DirectoryConfig{RefreshInterval: 100 * time.Hour})
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- d.Run(ctx) }()
				<-d.Running()
				run(t, behind, ahead, listen(t, feed), d)
				stop()
				require.NoError(t, <-ended)
			})
		})
	}
}

// What one node writes after another holds, whatever their clocks say: an answer of success is the truth.
func TestClocksApart(t *testing.T) {
	e := endpoint("bannou", "node-1", "state")
	said := func(s mesh.Status) mesh.Endpoint {
		e := e
		e.Status = s
		return e
	}
	deregister := func(t *testing.T, r *mesh.Registry) {
		t.Helper()
		gone, err := r.Deregister(t.Context(), "bannou", "node-1")
		require.NoError(t, err)
		require.True(t, gone)
	}
	apart(t, func(t *testing.T, behind, ahead *mesh.Registry, heard *announced, d *mesh.Directory) {
		require.NoError(t, ahead.Register(t.Context(), e))
		pass(time.Second)
		deregister(t, behind)
		assert.Empty(t, ids(t, behind, "bannou", true))
		assert.Equal(t, []string{"registered node-1 healthy", "deregistered node-1 healthy"}, heard.take())
		assert.Empty(t, known(d, "bannou"))
		gone, err := behind.Deregister(t.Context(), "bannou", "node-1")
		require.NoError(t, err)
		assert.False(t, gone)
	})
	apart(t, func(t *testing.T, behind, ahead *mesh.Registry, heard *announced, d *mesh.Directory) {
		require.NoError(t, ahead.Heartbeat(t.Context(), e))
		pass(time.Second)
		for _, s := range []mesh.Status{mesh.StatusUnavailable, mesh.StatusHealthy, mesh.StatusShuttingDown} {
			require.NoError(t, behind.Heartbeat(t.Context(), said(s)))
			assert.Equal(t, []string{"node-1 " + string(s)}, ids(t, behind, "bannou", true))
		}
		assert.Equal(t, []string{"registered node-1 healthy", "degraded node-1 unavailable", "registered node-1 healthy",
			"degraded node-1 shuttingDown"}, heard.take())
		assert.Empty(t, known(d, "bannou"), "a drained one gets no new request")
	})
	apart(t, func(t *testing.T, behind, ahead *mesh.Registry, heard *announced, d *mesh.Directory) {
		for _, come := range []func(context.Context, mesh.Endpoint) error{behind.Register, behind.Heartbeat} {
			require.NoError(t, ahead.Register(t.Context(), e))
			deregister(t, ahead)
			heard.take()
			pass(time.Second)
			require.NoError(t, come(t.Context(), e))
			assert.Equal(t, []string{"node-1 healthy"}, ids(t, behind, "bannou", true))
			assert.Equal(t, []string{"registered node-1 healthy"}, heard.take())
			assert.Equal(t, []string{"node-1 healthy"}, known(d, "bannou"))
			deregister(t, behind)
		}
		late := e
		late.LastSeen = time.Now()
		require.NoError(t, ahead.Heartbeat(t.Context(), late))
		assert.Empty(t, ids(t, behind, "bannou", true), "a heartbeat with a time, still on its way, does not bring it back")
	})
}

// A node whose clock is set back goes on living, and is heard when it drains.
func TestAClockThatStepsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry(t, meshtest.NewTable(), new(meshtest.Feed))
		e := endpoint("bannou", "node-1")
		require.NoError(t, r.Register(t.Context(), e))
		r.SetClock(func() time.Time { return time.Now().Add(-80 * time.Second) })
		for range 6 {
			pass(30 * time.Second)
			for _, s := range []mesh.Status{mesh.StatusShuttingDown, mesh.StatusHealthy} {
				e.Status = s
				require.NoError(t, r.Heartbeat(t.Context(), e))
				assert.Equal(t, []string{"node-1 " + string(s)}, ids(t, r, "bannou", true))
			}
		}
	})
}

// A meeting is a table on which something else happens once, after a key was read or before it is written.
type meeting struct {
	mesh.Table
	read, written string
	meet          func()
}

func (m *meeting) now(key, at string) {
	if key == at && m.meet != nil {
		meet := m.meet
		m.meet = nil
		meet()
	}
}

func (m *meeting) Get(ctx context.Context, key string) ([]byte, string, error) {
	value, etag, err := m.Table.Get(ctx, key)
	m.now(key, m.read)
	return value, etag, err
}

func (m *meeting) TryPut(ctx context.Context, key string, value []byte, etag string, ttl time.Duration) error {
	m.now(key, m.written)
	return m.Table.TryPut(ctx, key, value, etag, ttl)
}

// A process that ends while the next one with its id comes up takes only itself out; what it sent a moment ago keeps it not in.
func TestADeregistrationTakesNoNewerOneWithIt(t *testing.T) {
	for _, ahead := range []time.Duration{0, 3 * time.Second} {
		ctx, feed, m := t.Context(), new(meshtest.Feed), &meeting{Table: meshtest.NewTable(), read: "service:registry:bannou:node-1"}
		old, next := newRegistry(t, m, feed), newRegistry(t, m.Table, feed)
		old.SetClock(func() time.Time { return time.Now().Add(ahead) })
		e := endpoint("bannou", "node-1")
		require.NoError(t, old.Register(ctx, e))
		heard := listen(t, feed)
		m.meet = func() { require.NoError(t, next.Register(ctx, e)) }
		gone, err := old.Deregister(ctx, "bannou", "node-1")
		require.NoError(t, err)
		if ahead == 0 {
			assert.False(t, gone)
			assert.Equal(t, []string{"node-1 healthy"}, ids(t, next, "bannou", true))
			assert.Equal(t, []string{"registered node-1 healthy"}, heard.take())
		} else {
			assert.True(t, gone, "which one is newer cannot be told")
		}

		require.NoError(t, next.Heartbeat(ctx, e))
		e.LastSeen = time.Now()
		m.meet = func() {
			e.Status = mesh.StatusShuttingDown
			require.NoError(t, next.Heartbeat(ctx, e))
		}
		gone, err = old.Deregister(ctx, "bannou", "node-1")
		require.NoError(t, err)
		assert.True(t, gone, "a heartbeat that was on its way")
		assert.Empty(t, ids(t, next, "bannou", true))
	}
}

// Whoever is told that it is registered is there, and whoever is told that it is not is not.
func TestADeregistrationThatComesBetween(t *testing.T) {
	for _, registers := range []bool{true, false} {
		ctx, feed, m := t.Context(), new(meshtest.Feed), &meeting{Table: meshtest.NewTable(), written: "service:heartbeat:bannou"}
		here, there := newRegistry(t, m, feed), newRegistry(t, m.Table, feed)
		d := mesh.NewDirectory(there, feed, mesh.DirectoryConfig{RefreshInterval: time.Hour})
		run(t, d)
		e := endpoint("bannou", "node-1")
		require.NoError(t, there.Register(ctx, e))
		heard := listen(t, feed)
		m.meet = func() {
			gone, err := there.Deregister(ctx, "bannou", "node-1")
			require.NoError(t, err)
			require.True(t, gone)
		}
		want, say, events := []string{}, here.Heartbeat, []string{"deregistered node-1 healthy"}
		if registers {
			want, say, events = []string{"node-1 healthy"}, here.Register, append(events, "registered node-1 healthy")
		}
		require.NoError(t, say(ctx, e))
		assert.Equal(t, want, ids(t, there, "bannou", true))
		assert.Equal(t, want, known(d, "bannou"))
		assert.Equal(t, events, heard.take())
	}
}
