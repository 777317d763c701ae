package membership_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
	"github.com/bannou-mesh/bannou/services/membership"
)

// A witness is a table that tells when an instance is entered.
type witness struct {
	mesh.Table
	entered func()
}

func (w *witness) TryPut(ctx context.Context, key string, value []byte, etag string, ttl time.Duration) error {
	if strings.HasPrefix(key, "service:registry:") {
		w.entered()
	}
	return w.Table.TryPut(ctx, key, value, etag, ttl)
}

// Whoever hears of a node finds that it knows the mappings: it has imported them when it is entered into the registry.
func TestANodeImportsBeforeItIsAnnounced(t *testing.T) {
	table := &witness{Table: newTable(t)}
	s := newSuite(t, table)
	_, err := s.registry.SetMappings(t.Context(), map[string]string{"state": "elsewhere"}, "")
	require.NoError(t, err)
	directory := mesh.NewDirectory(s.registry, membership.NewFeed(s.bus, nil), mesh.DirectoryConfig{}) // nothing runs it
	var whenEntered string
	table.entered = func() { whenEntered = directory.AppID("state") }
	m := s.member(t, func(c *membership.Config) { c.Import, c.Interval = directory.Refresh, time.Hour })
	require.NoError(t, m.Start(t.Context()))
	require.Equal(t, "elsewhere", whenEntered)
	require.NoError(t, m.Stop(t.Context()))
}

func TestANodeThatCannotImportIsNotAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry, err := mesh.NewRegistry(meshtest.NewTable(), new(meshtest.Feed), mesh.RegistryConfig{})
		require.NoError(t, err)
		var able atomic.Bool
		var imports atomic.Int32
		m, err := membership.NewMember(membership.Config{Registry: registry, Host: "localhost", Port: 80, Import: func(context.Context) error {
			imports.Add(1)
			if !able.Load() {
				return errors.New("no mappings")
			}
			return nil
		}})
		require.NoError(t, err)
		there := func() int {
			list, err := registry.List(t.Context(), true)
			require.NoError(t, err)
			return len(list)
		}
		require.NoError(t, m.Start(t.Context()), "it keeps no node from serving")
		require.ErrorContains(t, m.Ready(t.Context()), "no mappings")
		<-time.After(time.Minute)
		require.Zero(t, there())
		able.Store(true)
		<-time.After(6 * time.Second)
		require.NoError(t, m.Ready(t.Context()))
		require.Equal(t, 1, there())
		before := imports.Load()
		<-time.After(5 * time.Minute)
		require.Equal(t, before, imports.Load(), "once is enough: from then on the directory follows")
		require.NoError(t, m.Stop(t.Context()))
	})
}

// Between the word that it shuts down and the end of its listener a node goes on to take what callers still send.
func TestDrainGivesNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := meshtest.NewTable()
		registry, err := mesh.NewRegistry(table, new(meshtest.Feed), mesh.RegistryConfig{})
		require.NoError(t, err)
		member := func() *membership.Member {
			m, err := membership.NewMember(membership.Config{Registry: registry, Host: "localhost", Port: 80, DrainNotice: 3 * time.Second})
			require.NoError(t, err)
			require.NoError(t, m.Start(t.Context()))
			return m
		}
		drain := func(m *membership.Member, ctx context.Context) time.Duration {
			begin := time.Now()
			m.Drain(ctx)
			took := time.Since(begin)
			require.NoError(t, m.Stop(context.Background()))
			return took
		}
		m := member()
		drained := make(chan time.Duration)
		go func() { drained <- drain(m, t.Context()) }()
		synctest.Wait()
		list, err := registry.List(t.Context(), true)
		require.NoError(t, err)
		require.Equal(t, mesh.StatusShuttingDown, list[0].Status, "said first")
		require.Equal(t, 3*time.Second, <-drained)

		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Equal(t, time.Second, drain(member(), impatient), "no longer than the drain may take")
		m = member()
		table.Fail(mesh.ErrUnavailable)
		require.Zero(t, drain(m, t.Context()), "nobody was told, and nobody is waited for")
	})
}

// A node whose clock was set back since its last heartbeat is heard when it drains.
func TestADrainIsHeardWhateverTheClockSays(t *testing.T) {
	const key = "service:registry:bannou:a"
	table := meshtest.NewTable()
	registry, err := mesh.NewRegistry(table, new(meshtest.Feed), mesh.RegistryConfig{})
	require.NoError(t, err)
	m, err := membership.NewMember(membership.Config{Registry: registry, Host: "localhost", Port: 80, InstanceID: "a", Interval: time.Hour})
	require.NoError(t, err)
	require.NoError(t, m.Start(t.Context()))
	value, _, err := table.Get(t.Context(), key)
	require.NoError(t, err)
	var entry mesh.Endpoint
	require.NoError(t, json.Unmarshal(value, &entry))
	entry.LastSeen = entry.LastSeen.Add(time.Minute)
	value, err = json.Marshal(entry)
	require.NoError(t, err)
	require.NoError(t, table.Put(t.Context(), key, value, time.Minute))
	m.Drain(t.Context())
	list, err := registry.List(t.Context(), true)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, mesh.StatusShuttingDown, list[0].Status)
	require.NoError(t, m.Stop(t.Context()))
	list, err = registry.List(t.Context(), true)
	require.NoError(t, err)
	require.Empty(t, list)
}

// Whoever hears of a node finds that what it has published is handled; a broker that is away keeps no node out of the mesh.
func TestANodeReadsBeforeItIsAnnounced(t *testing.T) {
	registry, err := mesh.NewRegistry(meshtest.NewTable(), new(meshtest.Feed), mesh.RegistryConfig{})
	require.NoError(t, err)
	there := func() int {
		list, err := registry.List(t.Context(), true)
		require.NoError(t, err)
		return len(list)
	}
	b := newBus(t)
	require.NoError(t, bus.Handle(b, events.TopicSessionUpdated, "update", func(context.Context, *events.SessionUpdatedEvent) error { return nil },
		bus.SubscriptionOptions{Service: "test"}))
	cfg := membership.Config{Registry: registry, Bus: b, Host: "localhost", Port: 80, InstanceID: "a", Timeout: 100 * time.Millisecond, Interval: 20 * time.Millisecond}
	m, err := membership.NewMember(cfg)
	require.NoError(t, err)
	require.NoError(t, m.Start(t.Context()), "it keeps no node from serving")
	require.ErrorContains(t, m.Ready(t.Context()), "not reading yet: session.updated.bannou.update")
	require.Zero(t, there())
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	soon(t, func() bool { return m.Ready(t.Context()) == nil })
	require.Equal(t, 1, there())
	require.NoError(t, m.Stop(t.Context()))
	stop()
	require.NoError(t, <-ended)

	cfg.Timeout = time.Minute
	cfg.Bus, err = bus.New(brokerAway{memorybus.New(memorybus.Config{})}, bus.Config{})
	require.NoError(t, err)
	require.NoError(t, bus.Handle(cfg.Bus, events.TopicSessionUpdated, "update", func(context.Context, *events.SessionUpdatedEvent) error { return nil },
		bus.SubscriptionOptions{Service: "test"}))
	m, err = membership.NewMember(cfg)
	require.NoError(t, err)
	require.NoError(t, m.Start(t.Context()))
	require.NoError(t, m.Ready(t.Context()))
	require.NoError(t, m.Stop(t.Context()))
	require.NoError(t, cfg.Bus.Close(context.Background()))
}

// brokerAway is one that is.
type brokerAway struct{ bus.Driver }

func (brokerAway) Ready(context.Context) error { return bus.ErrUnavailable }
