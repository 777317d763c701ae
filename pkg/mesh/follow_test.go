package mesh_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

// A patient feed waits for its bus for as long as it may, as a broker's driver does.
type patient struct {
	*meshtest.Feed
	there atomic.Bool
}

func (p *patient) Watch(ctx context.Context, fn func(mesh.Change)) (stop func(), err error) {
	if !p.there.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return p.Feed.Watch(ctx, fn)
}

// Where the bus is away when a node starts, and does not say so, the registry alone tells who is there; and goes on to.
func TestABusThatIsWaitedForHoldsNoReadUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := &patient{Feed: new(meshtest.Feed)}
		r := newRegistry(t, meshtest.NewTable(), feed)
		require.NoError(t, r.Register(t.Context(), endpoint("bannou", "node-1")))
		d := mesh.NewDirectory(r, feed, mesh.DirectoryConfig{})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		pass(time.Second)
		assert.Equal(t, []string{"node-1 healthy"}, known(d, "bannou"))
		require.NoError(t, r.Register(t.Context(), endpoint("bannou", "node-2")))
		pass(17 * time.Second)
		assert.Equal(t, []string{"node-1 healthy", "node-2 healthy"}, known(d, "bannou"), "it reads on")
		require.NoError(t, r.Register(t.Context(), endpoint("bannou", "node-3")))
		feed.there.Store(true)
		<-d.Running()
		assert.Equal(t, []string{"node-1 healthy", "node-2 healthy", "node-3 healthy"}, known(d, "bannou"),
			"once it watches, it reads what it missed")
		stop()
		require.NoError(t, <-ended)
		assert.Zero(t, feed.Watchers())
	})
}

// What is put in place is counted, so that a reader can tell whether anything changed.
func TestTheDirectoryIsVersioned(t *testing.T) {
	w := newWorld(t)
	first := w.directory.State()
	assert.EqualValues(t, 1, first.Version, "what was read")
	assert.True(t, first.Read)
	w.register(t, endpoint("bannou", "node-1"))
	_, err := w.registry.SetMappings(t.Context(), map[string]string{"state": "one"}, "")
	require.NoError(t, err)
	state := w.directory.State()
	assert.EqualValues(t, 3, state.Version)
	assert.EqualValues(t, 1, state.MappingsVersion)
	assert.Equal(t, 1, state.Endpoints)
	require.NoError(t, w.feed.Announce(t.Context(), mesh.Change{Kind: mesh.ChangeMappings, Mappings: mesh.Mappings{Version: 1}}))
	assert.EqualValues(t, 3, w.directory.State().Version, "what is refused changes nothing")
	fresh := mesh.NewDirectory(w.registry, w.feed, mesh.DirectoryConfig{})
	assert.Equal(t, mesh.DirectoryState{}, fresh.State())
}
