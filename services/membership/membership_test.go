package membership_test

import (
	"context"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/services/membership"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTable(t testing.TB) *membership.Table {
	t.Helper()
	factory, err := state.NewFactory(membership.Stores("memory", "memory"), []state.Driver{memorystate.New()}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, factory.Close()) })
	table, err := membership.NewTable(factory)
	require.NoError(t, err)
	return table
}

func newBus(t testing.TB) *bus.Bus {
	t.Helper()
	driver := memorybus.New(memorybus.Config{})
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, b.Close(context.Background()))
		require.NoError(t, driver.Close(context.Background()))
	})
	return b
}

func TestTableConforms(t *testing.T) {
	meshtest.RunTable(t, func(t *testing.T) mesh.Table { return newTable(t) })
}

func TestFeedConforms(t *testing.T) {
	meshtest.RunFeed(t, func(t *testing.T) (here, there mesh.Feed) {
		driver := memorybus.New(memorybus.Config{})
		t.Cleanup(func() { require.NoError(t, driver.Close(context.Background())) })
		nodes := make([]mesh.Feed, 2)
		for i := range nodes {
			b, err := bus.New(driver, bus.Config{})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, b.Close(context.Background())) })
			nodes[i] = membership.NewFeed(b, nil)
		}
		return nodes[0], nodes[1]
	})
}

func TestTableNeedsItsStores(t *testing.T) {
	factory, err := state.NewFactory(nil, nil, state.Options{})
	require.NoError(t, err)
	_, err = membership.NewTable(factory)
	require.ErrorContains(t, err, membership.ServiceStore)
}

func TestTableReadsMoreThanAThousandKeys(t *testing.T) {
	table := newTable(t)
	keys := make([]string, 2500)
	for i := range keys {
		keys[i] = "service:n" + strconv.Itoa(i)
		if i%2 == 1 {
			keys[i] = "config:n" + strconv.Itoa(i)
		}
		require.NoError(t, table.Put(t.Context(), keys[i], []byte(`{"n":`+strconv.Itoa(i)+`}`), 0))
	}
	values, err := table.GetMany(t.Context(), append(keys, "service:absent"))
	require.NoError(t, err)
	for i := range keys {
		require.JSONEq(t, `{"n":`+strconv.Itoa(i)+`}`, string(values[i]))
	}
	require.Nil(t, values[2500])
	_, _, err = table.Get(t.Context(), "other:key")
	require.ErrorContains(t, err, `neither with "service:" nor with "config:"`)
}

// suite is a registry with what a member needs.
type suite struct {
	registry *mesh.Registry
	bus      *bus.Bus
}

func newSuite(t *testing.T, table mesh.Table) suite {
	t.Helper()
	b := newBus(t)
	registry, err := mesh.NewRegistry(table, membership.NewFeed(b, nil), mesh.RegistryConfig{})
	require.NoError(t, err)
	return suite{registry: registry, bus: b}
}

func (s suite) member(t *testing.T, change func(*membership.Config)) *membership.Member {
	t.Helper()
	cfg := membership.Config{Registry: s.registry, Bus: s.bus, InstanceID: "one", Services: []string{"state"},
		Addr:     func() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711} },
		InFlight: func() int { return 250 }, Interval: 20 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	m, err := membership.NewMember(cfg)
	require.NoError(t, err)
	return m
}

func (s suite) entry(t *testing.T) *mesh.Endpoint {
	t.Helper()
	endpoints, err := s.registry.Endpoints(t.Context(), "bannou", true)
	require.NoError(t, err)
	if len(endpoints) == 0 {
		return nil
	}
	return &endpoints[0]
}

func TestAMembersLife(t *testing.T) {
	s := newSuite(t, newTable(t))
	registered, beats := make(chan *events.ServiceRegistrationEvent, 1000), make(chan *events.ServiceHeartbeatEvent, 1000)
	registrations, err := bus.Subscribe(t.Context(), s.bus, events.TopicServiceRegistration,
		func(_ context.Context, e *events.ServiceRegistrationEvent) error { registered <- e; return nil }, bus.SubscriptionOptions{})
	require.NoError(t, err)
	defer registrations.Close(context.Background())
	heartbeats, err := bus.Subscribe(t.Context(), s.bus, events.TopicServiceHeartbeats,
		func(_ context.Context, e *events.ServiceHeartbeatEvent) error { beats <- e; return nil }, bus.SubscriptionOptions{PrefetchCount: 1})
	require.NoError(t, err)
	defer heartbeats.Close(context.Background())

	m := s.member(t, nil)
	require.Equal(t, []string{"state"}, m.DependsOn())
	require.Error(t, m.Ready(t.Context()), "not before it has started")
	require.NoError(t, m.Start(t.Context()))
	require.NoError(t, m.Ready(t.Context()))
	e := s.entry(t)
	require.Equal(t, "127.0.0.1:4711", e.Address())
	require.Equal(t, mesh.StatusHealthy, e.Status)
	require.Equal(t, 250, e.CurrentConnections)
	require.GreaterOrEqual(t, e.LoadPercent, 25.0, "250 of 1000 requests")
	require.Equal(t, []string{"state"}, e.Services)

	require.Equal(t, 4711, (<-registered).Port)
	require.Equal(t, events.EndpointStatusHealthy, (<-beats).Status)
	soon(t, func() bool { return s.entry(t).LastSeen.After(e.LastSeen) })

	m.Drain(t.Context())
	require.Equal(t, mesh.StatusShuttingDown, s.entry(t).Status)
	require.NoError(t, m.Stop(t.Context()))
	require.Nil(t, s.entry(t))
	for last := false; !last; { // it is the last one
		select {
		case beat := <-beats:
			last = beat.Status == events.EndpointStatusShuttingDown
		case <-time.After(time.Minute):
			t.Fatal("the last heartbeat was not heard")
		}
	}
}

// Of a process that the member speaks for nothing is known but that it is there.
func TestAnotherProcesssLoadIsNotReported(t *testing.T) {
	s := newSuite(t, newTable(t))
	m := s.member(t, func(c *membership.Config) { c.Unmeasured = true })
	require.NoError(t, m.Start(t.Context()))
	e := s.entry(t)
	require.Zero(t, e.MaxConnections)
	require.Zero(t, e.CurrentConnections)
	require.Zero(t, e.LoadPercent)
	require.NoError(t, m.Stop(t.Context()))
}

// soon waits for what happens in the background. The condition is asked in the test's own goroutine, so that it may end the test.
func soon(t *testing.T, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); <-time.After(time.Millisecond) {
		require.True(t, time.Now().Before(end))
	}
}

// away is a table that cannot be reached until it is back.
type away struct {
	mesh.Table
	back atomic.Bool
}

func (a *away) Get(ctx context.Context, key string) ([]byte, string, error) {
	if !a.back.Load() {
		return nil, "", mesh.ErrUnavailable
	}
	return a.Table.Get(ctx, key)
}

func TestARegistryThatIsAwayIsTriedAgain(t *testing.T) {
	table := &away{Table: newTable(t)}
	s := newSuite(t, table)
	m := s.member(t, nil)
	require.NoError(t, m.Start(t.Context()), "it never keeps the node from serving")
	require.ErrorIs(t, m.Ready(t.Context()), mesh.ErrUnavailable)
	table.back.Store(true)
	soon(t, func() bool { return m.Ready(t.Context()) == nil })
	require.NotNil(t, s.entry(t))
	table.back.Store(false)
	soon(t, func() bool { return m.Ready(t.Context()) != nil })
	m.Drain(t.Context())
	require.NoError(t, m.Stop(t.Context()), "nor from stopping")
}

// A balancer that asks /readyz keeps the node out until it has said in the registry that it is there.
func TestARegistryThatIsBackIsToldSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := meshtest.NewTable()
		registry, err := mesh.NewRegistry(table, new(meshtest.Feed), mesh.RegistryConfig{})
		require.NoError(t, err)
		m, err := membership.NewMember(membership.Config{Registry: registry, Host: "localhost", Port: 80})
		require.NoError(t, err)
		require.NoError(t, m.Start(t.Context()))
		table.Fail(mesh.ErrUnavailable)
		<-time.After(5*time.Minute + 10*time.Second)
		require.Error(t, m.Ready(t.Context()))
		table.Fail(nil)
		<-time.After(6 * time.Second)
		require.NoError(t, m.Ready(t.Context()))
		require.NoError(t, m.Stop(t.Context()))
	})
}

// silent is a table that does not answer.
type silent struct {
	mesh.Table
	now atomic.Bool
}

func (s *silent) Get(ctx context.Context, key string) ([]byte, string, error) {
	if s.now.Load() {
		<-ctx.Done()
		return nil, "", ctx.Err()
	}
	return s.Table.Get(ctx, key)
}

func TestASilentRegistryIsNotWaitedForTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := &silent{Table: meshtest.NewTable()}
		registry, err := mesh.NewRegistry(table, new(meshtest.Feed), mesh.RegistryConfig{})
		require.NoError(t, err)
		m, err := membership.NewMember(membership.Config{Registry: registry, Host: "localhost", Port: 80})
		require.NoError(t, err)
		require.NoError(t, m.Start(t.Context()))
		table.now.Store(true)
		begin := time.Now()
		m.Drain(t.Context())
		require.NoError(t, m.Stop(t.Context()))
		require.LessOrEqual(t, time.Since(begin), 6*time.Second, "whoever ends the process waits 10 s by default")
	})
}

func TestAddresses(t *testing.T) {
	s := newSuite(t, newTable(t))
	everywhere := func() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: 4711} }
	for name, c := range map[string]struct {
		change func(*membership.Config)
		check  func(e *mesh.Endpoint)
	}{
		"host given": {func(c *membership.Config) { c.Host = "node-7"; c.Addr = everywhere },
			func(e *mesh.Endpoint) { require.Equal(t, "node-7:4711", e.Address()) }},
		"all addresses": {func(c *membership.Config) { c.Addr = everywhere },
			func(e *mesh.Endpoint) { require.NotEqual(t, "0.0.0.0", e.Host); require.NotEmpty(t, e.Host) }},
		"both given": {func(c *membership.Config) { c.Host, c.Port, c.Addr = "node-8", 80, nil },
			func(e *mesh.Endpoint) { require.Equal(t, "node-8:80", e.Address()) }},
	} {
		t.Run(name, func(t *testing.T) {
			m := s.member(t, c.change)
			require.NoError(t, m.Start(t.Context()))
			c.check(s.entry(t))
			require.NoError(t, m.Stop(t.Context()))
		})
	}
	_, err := membership.NewMember(membership.Config{Registry: s.registry})
	require.ErrorContains(t, err, "address")
	_, err = membership.NewMember(membership.Config{Addr: everywhere})
	require.ErrorContains(t, err, "registry")
	_, err = membership.NewMember(membership.Config{Registry: s.registry, Addr: everywhere, AppID: "Not A Name"})
	require.ErrorIs(t, err, mesh.ErrInvalid)
	m := s.member(t, func(c *membership.Config) { c.Addr = func() net.Addr { return nil } })
	require.Error(t, m.Start(t.Context()), "a node that does not listen cannot be announced")
}

func TestFeedSaysWhenTheBusIsAway(t *testing.T) {
	b := newBus(t)
	feed := membership.NewFeed(b, nil)
	require.Error(t, feed.Announce(t.Context(), mesh.Change{Kind: "none"}))
	require.NoError(t, b.Close(t.Context()))
	require.ErrorIs(t, feed.Announce(t.Context(), mesh.Change{Kind: mesh.ChangeMappings}), mesh.ErrUnavailable)
	_, err := feed.Watch(t.Context(), func(mesh.Change) {})
	require.ErrorIs(t, err, mesh.ErrUnavailable)
}
