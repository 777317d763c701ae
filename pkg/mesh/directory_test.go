package mesh_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

func known(d *mesh.Directory, app string) []string {
	list := []string{}
	for _, e := range d.Endpoints(app) {
		list = append(list, e.InstanceID+" "+string(e.Status))
	}
	return list
}

func TestANewInstanceIsUsedAtOnce(t *testing.T) {
	w := newWorld(t)
	require.Empty(t, w.directory.Endpoints("bannou"))
	w.register(t, endpoint("bannou", "node-1", "state"))
	require.Len(t, w.directory.Endpoints("bannou"), 1, "the feed has told of it")

	_, err := w.registry.SetMappings(t.Context(), map[string]string{"state": "elsewhere"}, "")
	require.NoError(t, err)
	assert.Equal(t, "elsewhere", w.directory.AppID("state"))
	assert.Equal(t, "bannou", w.directory.AppID("mesh"))
	gone, err := w.registry.Deregister(t.Context(), "bannou", "node-1")
	require.NoError(t, err)
	assert.True(t, gone)
	assert.Empty(t, w.directory.Endpoints("bannou"))
}

func TestWhatTheFeedLosesTheRefreshFinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, feed := meshtest.NewTable(), new(meshtest.Feed)
		r := newRegistry(t, table, new(meshtest.Feed)) // announces where nobody listens
		d := mesh.NewDirectory(r, feed, mesh.DirectoryConfig{})
		run(t, d)
		require.NoError(t, r.Register(t.Context(), endpoint("bannou", "node-1")))
		_, err := r.SetMappings(t.Context(), map[string]string{"state": "elsewhere"}, "")
		require.NoError(t, err)
		synctest.Wait()
		assert.Empty(t, known(d, "bannou"))
		pass(17 * time.Second) // 15 s and a tenth
		synctest.Wait()
		assert.Equal(t, []string{"node-1 healthy"}, known(d, "bannou"))
		assert.Equal(t, "elsewhere", d.AppID("state"))
		pass(62 * time.Second) // a refresh between 60 s and 79 s, whatever chance adds
		synctest.Wait()
		assert.Equal(t, []string{"node-1 degraded"}, known(d, "bannou"), "degraded ones serve when there is nothing better")
		pass(time.Minute)
		synctest.Wait()
		assert.Empty(t, known(d, "bannou"))
	})
}

func TestLastKnownEndpointsServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, feed := meshtest.NewTable(), new(meshtest.Feed)
		r := newRegistry(t, table, feed)
		d := mesh.NewDirectory(r, feed, mesh.DirectoryConfig{})
		_, ok := d.Age()
		assert.False(t, ok)
		run(t, d)
		require.NoError(t, r.Register(t.Context(), endpoint("bannou", "node-1")))
		table.Fail(mesh.ErrUnavailable)
		feed.Fail(errors.New("broker away"))
		pass(time.Hour)
		synctest.Wait()
		assert.Equal(t, []string{"node-1 healthy"}, known(d, "bannou"))
		age, ok := d.Age()
		assert.True(t, ok)
		assert.GreaterOrEqual(t, age, time.Hour-20*time.Second)

		table.Fail(nil)
		feed.Fail(nil)
		pass(20 * time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"node-1 healthy"}, known(d, "bannou"), "the registry is back, its next heartbeat may be on its way")
		age, _ = d.Age()
		assert.Less(t, age, 20*time.Second)
		pass(50 * time.Second)
		synctest.Wait()
		assert.Empty(t, known(d, "bannou"), "it did not come back")
	})
}

// A registry that lost its memory has nobody until the next heartbeats, while everybody is there.
func TestARegistryThatForgetsEndsNoCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := new(meshtest.Feed)
		source := &moving{}
		source.to(newRegistry(t, meshtest.NewTable(), feed))
		d := mesh.NewDirectory(source, feed, mesh.DirectoryConfig{})
		run(t, d)
		for _, e := range []mesh.Endpoint{endpoint("bannou", "node-1", "state"), endpoint("bannou", "node-2", "messaging"), endpoint("bannou", "node-3")} {
			require.NoError(t, source.Load().Register(t.Context(), e))
		}
		pass(20 * time.Second)
		_, err := source.Load().Deregister(t.Context(), "bannou", "node-3")
		require.NoError(t, err)
		source.to(newRegistry(t, meshtest.NewTable(), feed)) // empty
		for range 20 {
			pass(time.Second)
			synctest.Wait()
			require.Equal(t, []string{"node-1 healthy", "node-2 healthy"}, known(d, "bannou"))
		}
		require.NoError(t, source.Load().Heartbeat(t.Context(), endpoint("bannou", "node-1", "state")))
		pass(time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"node-1 healthy", "node-2 healthy"}, known(d, "bannou"), "one is back, the other is not due yet")
		// A read notices at most 16.5 s after the loss, keeps it for 35 s, and the next may be 16.5 s later.
		pass(48 * time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"node-1 healthy"}, known(d, "bannou"), "the other did not come back")
	})
}

// A registry that lost its versions counts from the beginning again, and what is set then has to be followed.
func TestMappingsAfterTheRegistryForgotThem(t *testing.T) {
	feed := new(meshtest.Feed)
	source := &moving{}
	source.to(newRegistry(t, meshtest.NewTable(), feed))
	d := mesh.NewDirectory(source, feed, mesh.DirectoryConfig{})
	run(t, d)
	for _, app := range []string{"one", "two", "three"} {
		_, err := source.Load().SetMappings(t.Context(), map[string]string{"state": app}, "")
		require.NoError(t, err)
	}
	source.to(newRegistry(t, meshtest.NewTable(), feed))
	require.NoError(t, d.Refresh(t.Context()))
	assert.Equal(t, "three", d.AppID("state"), "the last known ones serve")
	_, err := source.Load().SetMappings(t.Context(), map[string]string{"state": "four"}, "")
	require.NoError(t, err)
	require.NoError(t, d.Refresh(t.Context()))
	assert.Equal(t, "four", d.AppID("state"))
}

// What the feed tells is put in place at once; a registry that is told a moment later does not undo it meanwhile.
func TestARegistryThatIsToldLaterUndoesNothing(t *testing.T) {
	w := newWorld(t)
	set := func(version int64, app string) mesh.Mappings {
		m := mesh.Mappings{Services: map[string]string{"state": app}, Version: version}
		require.NoError(t, w.feed.Announce(t.Context(), mesh.Change{Kind: mesh.ChangeMappings, Mappings: m}))
		return m
	}
	first := set(7, "one")
	_, err := w.registry.ApplyMappings(t.Context(), first)
	require.NoError(t, err)
	for version := int64(8); version < 12; version++ {
		app := fmt.Sprint("app-", version)
		m := set(version, app)
		require.NoError(t, w.directory.Refresh(t.Context()))
		assert.Equal(t, app, w.directory.AppID("state"))
		_, err := w.registry.ApplyMappings(t.Context(), m)
		require.NoError(t, err)
		require.NoError(t, w.directory.Refresh(t.Context()))
		assert.Equal(t, app, w.directory.AppID("state"))
	}
	set(20, "lost")
	require.NoError(t, w.directory.Refresh(t.Context()))
	require.NoError(t, w.directory.Refresh(t.Context()))
	assert.Equal(t, "app-11", w.directory.AppID("state"), "nobody wrote it down")
	require.NoError(t, w.feed.Announce(t.Context(), mesh.Change{Kind: mesh.ChangeMappings,
		Mappings: mesh.Mappings{Services: map[string]string{"state": "No Name"}, Version: 21}}))
	assert.Equal(t, "app-11", w.directory.AppID("state"), "what the registry would refuse is not put in place")
}

// moving is a registry that can be replaced by another.
type moving struct{ atomic.Pointer[mesh.Registry] }

func (m *moving) to(r *mesh.Registry) { m.Store(r) }

func (m *moving) List(ctx context.Context, all bool) ([]mesh.Endpoint, error) {
	return m.Load().List(ctx, all)
}

func (m *moving) Mappings(ctx context.Context) (mesh.Mappings, error) { return m.Load().Mappings(ctx) }

func TestADirectoryComesUpWithoutItsFeedAndSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, feed := meshtest.NewTable(), new(meshtest.Feed)
		r := newRegistry(t, table, feed)
		require.NoError(t, r.Register(t.Context(), endpoint("bannou", "node-1")))
		table.Fail(mesh.ErrUnavailable)
		feed.Fail(errors.New("broker away"))
		d := mesh.NewDirectory(r, feed, mesh.DirectoryConfig{})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		pass(4 * time.Second)
		table.Fail(nil)
		pass(10 * time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"node-1 healthy"}, known(d, "bannou"), "the source alone is enough")
		select {
		case <-d.Running():
			t.Fatal("it does not watch yet")
		default:
		}
		feed.Fail(nil)
		pass(17 * time.Second)
		<-d.Running()
		assert.Equal(t, 1, feed.Watchers())
		stop()
		require.NoError(t, <-ended)
		assert.Equal(t, 0, feed.Watchers())
		require.Error(t, d.Run(t.Context()), "it runs once")
	})
}

// A gate is a source whose List waits until it is told to return what it read.
type gate struct {
	mesh.Source
	entered, leave chan struct{}
	reads          atomic.Int32
}

func (g *gate) List(ctx context.Context, all bool) ([]mesh.Endpoint, error) {
	list, err := g.Source.List(ctx, all)
	g.reads.Add(1)
	g.entered <- struct{}{}
	select {
	case <-g.leave:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return list, err
}

func TestAChangeDuringARefreshIsNotLost(t *testing.T) {
	ctx := t.Context()
	table, feed := meshtest.NewTable(), new(meshtest.Feed)
	r := newRegistry(t, table, feed)
	require.NoError(t, r.Register(ctx, endpoint("bannou", "leaves")))
	g := &gate{Source: r, entered: make(chan struct{}), leave: make(chan struct{})}
	d := mesh.NewDirectory(g, feed, mesh.DirectoryConfig{RefreshInterval: time.Hour})
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(running) }()
	<-g.entered
	g.leave <- struct{}{}
	<-d.Running()

	refreshed := make(chan error, 1)
	go func() { refreshed <- d.Refresh(ctx) }()
	<-g.entered
	require.NoError(t, r.Register(ctx, endpoint("bannou", "comes")))
	_, err := r.Deregister(ctx, "bannou", "leaves")
	require.NoError(t, err)
	_, err = r.SetMappings(ctx, map[string]string{"state": "elsewhere"}, "")
	require.NoError(t, err)
	g.leave <- struct{}{}
	require.NoError(t, <-refreshed)
	assert.Equal(t, []string{"comes healthy"}, known(d, "bannou"))
	assert.Equal(t, "elsewhere", d.AppID("state"))

	go func() { _ = d.Refresh(ctx) }()
	<-g.entered
	stop() // while a read is under way
	require.NoError(t, <-ended)
}

func TestRefreshesShareOneRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{Source: newRegistry(t, meshtest.NewTable(), new(meshtest.Feed)), entered: make(chan struct{}, 9), leave: make(chan struct{}, 9)}
		d := mesh.NewDirectory(g, new(meshtest.Feed), mesh.DirectoryConfig{})
		impatient, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		callers.Go(func() { assert.ErrorIs(t, d.Refresh(impatient), context.Canceled) })
		synctest.Wait()
		for range 5 {
			callers.Go(func() { assert.NoError(t, d.Refresh(t.Context())) })
		}
		synctest.Wait()
		cancel() // the first caller gives up; the others still get their answer
		synctest.Wait()
		g.leave <- struct{}{}
		callers.Wait()
		assert.Equal(t, int32(1), g.reads.Load())
	})
}

func TestChangesOutOfOrder(t *testing.T) {
	w := newWorld(t)
	announce := func(kind mesh.ChangeKind, e mesh.Endpoint, ago time.Duration) {
		e.LastSeen = time.Now().Add(-ago)
		require.NoError(t, w.feed.Announce(t.Context(), mesh.Change{Kind: kind, Endpoint: e}))
	}
	e := endpoint("bannou", "node-1")
	announce(mesh.ChangeRegistered, e, 10*time.Second)
	announce(mesh.ChangeDeregistered, e, 20*time.Second)
	assert.Equal(t, []string{"node-1 healthy"}, known(w.directory, "bannou"), "it left before it came back")
	announce(mesh.ChangeDegraded, e, 15*time.Second)
	assert.Equal(t, []string{"node-1 healthy"}, known(w.directory, "bannou"))
	announce(mesh.ChangeDegraded, mesh.Endpoint{AppID: "bannou", InstanceID: "node-1"}, 5*time.Second)
	assert.Equal(t, []string{"node-1 degraded"}, known(w.directory, "bannou"), "ids are enough for what is known")
	assert.Equal(t, "127.0.0.1:3500", w.directory.Endpoints("bannou")[0].Address())
	down := e
	down.Status = mesh.StatusShuttingDown
	announce(mesh.ChangeDegraded, down, 0)
	assert.Empty(t, known(w.directory, "bannou"))

	left := endpoint("bannou", "node-2")
	announce(mesh.ChangeDeregistered, left, 10*time.Second)
	announce(mesh.ChangeRegistered, left, 20*time.Second)
	announce(mesh.ChangeRegistered, left, 20*time.Second)
	require.NoError(t, w.directory.Refresh(t.Context()))
	announce(mesh.ChangeDegraded, left, 15*time.Second)
	assert.Empty(t, known(w.directory, "bannou"), "it was heard to leave before it was heard to come")
	announce(mesh.ChangeRegistered, left, 5*time.Second)
	assert.Equal(t, []string{"node-2 healthy"}, known(w.directory, "bannou"), "it is back")
	announce(mesh.ChangeRegistered, endpoint("bannou", "node-3"), 10*time.Second)
	announce(mesh.ChangeDeregistered, endpoint("bannou", "node-3"), 8*time.Second)
	announce(mesh.ChangeDegraded, endpoint("bannou", "node-3"), 9*time.Second)
	assert.Equal(t, []string{"node-2 healthy"}, known(w.directory, "bannou"))
	announce(mesh.ChangeDeregistered, left, 0)

	mappings := func(version int64, app string) {
		require.NoError(t, w.feed.Announce(t.Context(), mesh.Change{Kind: mesh.ChangeMappings,
			Mappings: mesh.Mappings{Services: map[string]string{"state": app}, Version: version}}))
	}
	mappings(5, "five")
	mappings(4, "four")
	mappings(5, "again")
	assert.Equal(t, "five", w.directory.AppID("state"))
}

func TestResolve(t *testing.T) {
	w := newWorld(t)
	w.register(t, endpoint("bannou", "node-1", "state", "mesh"))
	w.register(t, endpoint("bannou-world", "node-2", "realm", "location"))
	_, err := w.registry.SetMappings(t.Context(), map[string]string{"realm": "bannou-world"}, "")
	require.NoError(t, err)
	for _, c := range []struct {
		target, app string
		known       bool
	}{
		{"realm", "bannou-world", true}, // mapped
		{"state", "bannou", true},       // offered, so on the default app-id
		{"bannou-world", "bannou-world", true},
		{"bannou", "bannou", true},
		{"location", "bannou", true}, // offered elsewhere, but not mapped there
		{"nothing", "bannou", false},
	} {
		app, ok := w.directory.Resolve(c.target)
		assert.Equal(t, c.app, app, c.target)
		assert.Equal(t, c.known, ok, c.target)
	}
}

func TestReadersNeverSeeHalfAChange(t *testing.T) {
	w := newWorld(t)
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				m := w.directory.Mappings()
				if m.Version > 0 && m.Services["a"] != m.Services["b"] {
					t.Error("two versions in one", m)
					return
				}
				for _, e := range w.directory.Endpoints("bannou") {
					if e.Validate() != nil {
						t.Error("half an endpoint")
						return
					}
				}
			}
		})
	}
	for i := range 200 {
		app := []string{"one", "two"}[i%2]
		_, err := w.registry.SetMappings(ctx, map[string]string{"a": app, "b": app}, "")
		require.NoError(t, err)
		w.register(t, endpoint("bannou", "node-1"))
		_, err = w.registry.Deregister(ctx, "bannou", "node-1")
		require.NoError(t, err)
	}
	stop()
	readers.Wait()
}
