package meshtest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// RunFeed checks that feeds made by newFeeds keep the contract of mesh.Feed. newFeeds is called once for each case and
// returns the feeds of two nodes on one bus; where a bus lives within one process they may be the same.
func RunFeed(t *testing.T, newFeeds func(t *testing.T) (here, there mesh.Feed)) {
	t.Helper()
	for _, c := range []struct {
		name string
		run  func(t *testing.T, here, there mesh.Feed)
	}{
		{"every kind of change arrives whole, at every node", feedEveryKind},
		{"every watcher of a node gets every change", feedEveryWatcher},
		{"after stop nothing arrives", feedStop},
		{"a directory follows a registry of another node", feedDirectory},
	} {
		t.Run(c.name, func(t *testing.T) {
			here, there := newFeeds(t)
			c.run(t, here, there)
		})
	}
}

// seen collects what a watcher is told.
type seen struct {
	mu      sync.Mutex
	changes []mesh.Change
}

func (s *seen) add(c mesh.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes = append(s.changes, c)
}

func (s *seen) first(match func(mesh.Change) bool) (mesh.Change, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.changes {
		if match(c) {
			return c, true
		}
	}
	return mesh.Change{}, false
}

func watch(t *testing.T, f mesh.Feed) *seen {
	t.Helper()
	s := new(seen)
	stop, err := f.Watch(testContext(t), s.add)
	require.NoError(t, err)
	t.Cleanup(stop)
	return s
}

func (s *seen) eventually(t *testing.T, what string, match func(mesh.Change) bool) mesh.Change {
	t.Helper()
	var found mesh.Change
	require.Eventually(t, func() bool {
		var ok bool
		found, ok = s.first(match)
		return ok
	}, 10*time.Second, 2*time.Millisecond, what)
	return found
}

func sampleEndpoint(instance string) mesh.Endpoint {
	at := time.Now().UTC().Truncate(time.Millisecond).Add(1) // which orders changes, to the nanosecond
	return mesh.Endpoint{AppID: "bannou-world", InstanceID: instance, Host: "10.1.2.3", Port: 3500, ExternalHost: "play.example.com",
		Status: mesh.StatusHealthy, LoadPercent: 12.5, MaxConnections: 400, CurrentConnections: 7, LastSeen: at,
		RegisteredAt: at.Add(-time.Hour), Services: []string{"location", "realm"}}
}

func feedEveryKind(t *testing.T, here, there mesh.Feed) {
	ctx := testContext(t)
	watchers := map[string]*seen{"the announcing node": watch(t, here), "the other node": watch(t, there)}

	registered, shutting := sampleEndpoint("i-registered"), sampleEndpoint("i-shutting")
	shutting.Status = mesh.StatusShuttingDown
	left, silent := sampleEndpoint("i-left"), sampleEndpoint("i-silent")
	silent.Status = mesh.StatusDegraded
	mappings := mesh.Mappings{Services: map[string]string{"realm": "bannou-world"}, DefaultAppID: "bannou", Version: 7, SourceInstanceID: "i-1"}
	for _, c := range []mesh.Change{
		{Kind: mesh.ChangeRegistered, Endpoint: registered}, {Kind: mesh.ChangeDegraded, Endpoint: shutting},
		{Kind: mesh.ChangeDegraded, Endpoint: silent, Unreachable: true}, {Kind: mesh.ChangeDeregistered, Endpoint: left}, {Kind: mesh.ChangeMappings, Mappings: mappings},
	} {
		require.NoError(t, here.Announce(ctx, c))
	}
	for name, s := range watchers {
		of := func(kind mesh.ChangeKind, instance string) mesh.Change {
			return s.eventually(t, name+" hears of "+string(kind), func(c mesh.Change) bool {
				return c.Kind == kind && c.Endpoint.InstanceID == instance
			})
		}
		sameEndpoint(t, registered, of(mesh.ChangeRegistered, "i-registered").Endpoint)
		reported := of(mesh.ChangeDegraded, "i-shutting")
		sameEndpoint(t, shutting, reported.Endpoint)
		assert.False(t, reported.Unreachable)
		assert.True(t, of(mesh.ChangeDegraded, "i-silent").Unreachable)
		got := of(mesh.ChangeDeregistered, "i-left").Endpoint
		assert.Equal(t, left.AppID, got.AppID)
		assert.WithinDuration(t, left.LastSeen, got.LastSeen, 0, "changes are ordered by lastSeen")
		assert.Equal(t, mappings, of(mesh.ChangeMappings, "").Mappings)
	}
}

func sameEndpoint(t *testing.T, want, got mesh.Endpoint) {
	t.Helper()
	assert.Equal(t, want.AppID, got.AppID)
	assert.Equal(t, want.Host, got.Host)
	assert.Equal(t, want.Port, got.Port)
	assert.Equal(t, want.ExternalHost, got.ExternalHost)
	assert.Equal(t, want.Status, got.Status)
	assert.Equal(t, want.Services, got.Services)
	assert.Equal(t, want.MaxConnections, got.MaxConnections)
	assert.WithinDuration(t, want.LastSeen, got.LastSeen, 0, "changes are ordered by lastSeen")
}

func feedEveryWatcher(t *testing.T, here, there mesh.Feed) {
	ctx := testContext(t)
	one, two := watch(t, there), watch(t, there)
	for range 3 {
		require.NoError(t, here.Announce(ctx, mesh.Change{Kind: mesh.ChangeRegistered, Endpoint: sampleEndpoint("i-1")}))
	}
	for _, s := range []*seen{one, two} {
		require.Eventually(t, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.changes) >= 3
		}, 10*time.Second, 2*time.Millisecond)
	}
}

func feedStop(t *testing.T, here, there mesh.Feed) {
	ctx := testContext(t)
	stopped, kept := new(seen), watch(t, there)
	stop, err := there.Watch(ctx, stopped.add)
	require.NoError(t, err)
	stop()
	require.NoError(t, here.Announce(ctx, mesh.Change{Kind: mesh.ChangeRegistered, Endpoint: sampleEndpoint("i-after")}))
	kept.eventually(t, "the other watcher goes on", func(c mesh.Change) bool { return c.Endpoint.InstanceID == "i-after" })
	_, heard := stopped.first(func(mesh.Change) bool { return true })
	assert.False(t, heard)
	stop() // twice is no harm
}

func feedDirectory(t *testing.T, here, there mesh.Feed) {
	ctx := testContext(t)
	r, err := mesh.NewRegistry(NewTable(), here, mesh.RegistryConfig{})
	require.NoError(t, err)
	// No refresh comes in the time of the test: what the directory learns, it learns by the feed.
	d := mesh.NewDirectory(r, there, mesh.DirectoryConfig{RefreshInterval: time.Hour})
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.Run(running) }()
	defer func() { stop(); assert.NoError(t, <-ended) }()
	select {
	case <-d.Running():
	case <-ctx.Done():
		t.Fatal("the directory does not come up")
	}
	require.NoError(t, r.Register(ctx, sampleEndpoint("i-1")))
	require.Eventually(t, func() bool { return len(d.Endpoints("bannou-world")) == 1 }, 10*time.Second, time.Millisecond)
	_, err = r.Deregister(ctx, "bannou-world", "i-1")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return len(d.Endpoints("bannou-world")) == 0 }, 10*time.Second, time.Millisecond)
}
