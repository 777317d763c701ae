package pairs

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
	"github.com/bannou-mesh/bannou/services/permissions"
)

// permissionsSessions are as many as the bar is for.
const permissionsSessions = 1000

// BenchmarkPermissions measures, among 1 000 sessions on Redis and RabbitMQ, how long it takes from when a change is published to when
// who holds the connections has heard what the sessions may call from then on: one of them, or all.
func BenchmarkPermissions(b *testing.B) {
	driver, err := redisstate.New(redisstate.Config{URLs: []string{servers.NewRedis(b, servers.RedisOptions{Fsync: "everysec"}).URL}})
	require.NoError(b, err)
	factory, err := state.NewFactory([]state.StoreConfig{{Name: permissions.SessionStore, Backend: "redis"}, {Name: permissions.ServiceStore, Backend: "redis"}},
		[]state.Driver{driver}, state.Options{})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, factory.Close()) })
	broker := servers.RabbitMQ(b).URL
	service, gateway := newBus(b, broker), newBus(b, broker)
	_, err = permissions.New(permissions.Config{Factory: factory, Bus: service})
	require.NoError(b, err)
	h := &capabilitiesHeard{latest: map[string]*events.SessionCapabilitiesEvent{}, ofOne: map[string]int64{}, knows: map[string]string{}, news: make(chan struct{}, 1)}
	require.NoError(b, bus.Handle(gateway, events.TopicPermissionsSessionCapabilities, "gateway", h.hear, bus.SubscriptionOptions{}))
	require.NoError(b, bus.Handle(gateway, events.TopicPermissionsCapabilitiesChanged, "gateway", h.hearOfMany, bus.SubscriptionOptions{}))
	for _, x := range []*bus.Bus{service, gateway} {
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- x.Run(ctx) }()
		<-x.Running()
		require.Eventually(b, func() bool { return x.Ready(b.Context()) == nil }, patience, time.Millisecond)
		b.Cleanup(func() { stop(); require.NoError(b, <-ended) })
	}
	p := permissionsWorld{bus: gateway, heard: h, version: 1}
	for i := range permissionsSessions {
		require.NoError(b, p.roles(b, i, 1, "user"))
	}
	b.Logf("the first registration reached all sessions in %s", p.register(b))

	b.Run("a role of one of 1000 sessions/bannou", func(b *testing.B) {
		delays := make([]time.Duration, b.N)
		for n := range b.N {
			p.version++
			session := n * 7 % permissionsSessions
			p.role[session] = 1 - p.role[session]
			roles := []string{"user", fmt.Sprintf("role-%d", p.role[session])}
			begin := time.Now()
			require.NoError(b, p.roles(b, session, p.version, roles...))
			delays[n] = h.until(func() bool {
				return slices.Contains(h.latest[sessionID(session)].Capabilities["game"], "POST /game/of-"+roles[1])
			}).Sub(begin)
		}
		reportDelays(b, delays)
	})
	b.Run("a registration until 1000 sessions know/bannou", func(b *testing.B) {
		delays := make([]time.Duration, b.N)
		for n := range b.N {
			delays[n] = p.register(b)
		}
		reportDelays(b, delays)
	})
}

func reportDelays(b *testing.B, delays []time.Duration) {
	slices.Sort(delays)
	b.ReportMetric(float64(delays[len(delays)/2].Nanoseconds()), "ns/op")
	b.ReportMetric(float64(delays[len(delays)*99/100].Nanoseconds()), "p99-ns/op")
}

// permissionsWorld changes roles and registrations.
type permissionsWorld struct {
	bus     *bus.Bus
	heard   *capabilitiesHeard
	version int64
	role    [permissionsSessions]int // of those that change
}

func sessionID(number int) string { return fmt.Sprintf("session-%d", number) }

func (p *permissionsWorld) roles(b *testing.B, session int, version int64, roles ...string) error {
	id := sessionID(session)
	_, err := p.bus.PublishWith(b.Context(), events.TopicSessionUpdated, &events.SessionUpdatedEvent{SessionID: id, AccountID: id, Roles: roles, Version: version,
		Reason: events.SessionUpdatedReasonRolesChanged}, bus.PublishOptions{PartitionKey: id})
	return err
}

// register replaces what a service has registered, and returns how long it took until all sessions' holders knew.
func (p *permissionsWorld) register(b *testing.B) time.Duration {
	b.Helper()
	p.version++
	path := fmt.Sprintf("/game/v%d", p.version)
	e := &events.PermissionsServiceRegisteredEvent{ServiceName: "game", AppID: "game", Version: "1"}
	add := func(path, role string) {
		e.Endpoints = append(e.Endpoints, events.PermissionsEndpoint{Method: "POST", Path: path, Permissions: []events.PermissionsRequirement{{Role: role}}})
	}
	for i := range 20 {
		add(fmt.Sprintf("/game/e%d", i), "user")
	}
	add(path, "user")
	add("/game/of-role-0", "role-0")
	add("/game/of-role-1", "role-1")
	begin := time.Now()
	_, err := p.bus.PublishWith(b.Context(), events.TopicPermissionsServiceRegistered, e, bus.PublishOptions{PartitionKey: "game"})
	require.NoError(b, err)
	took := p.heard.until(func() bool {
		if len(p.heard.latest) < permissionsSessions {
			return false
		}
		for id, latest := range p.heard.latest {
			if p.heard.knows[id] != path {
				if !slices.Contains(latest.Capabilities["game"], "POST "+path) {
					return false
				}
				p.heard.knows[id] = path
			}
		}
		return true
	}).Sub(begin)
	p.heard.until(func() bool { // the events of each session that follow are not measured, and do not belong to the next
		for id, latest := range p.heard.latest {
			if p.heard.ofOne[id] < latest.Version {
				return false
			}
		}
		return true
	})
	return took
}

// capabilitiesHeard are the latest of each session, as a gateway keeps them.
type capabilitiesHeard struct {
	mu     sync.Mutex
	latest map[string]*events.SessionCapabilitiesEvent
	ofOne  map[string]int64 // the versions of events of one session
	knows  map[string]string
	last   time.Time
	news   chan struct{} // has room for one
}

func (h *capabilitiesHeard) hear(_ context.Context, e *events.SessionCapabilitiesEvent) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ofOne[e.SessionID] = max(h.ofOne[e.SessionID], e.Version)
	h.keep(e)
	return nil
}

// keep is what a gateway does with what it hears; h.mu is held.
func (h *capabilitiesHeard) keep(e *events.SessionCapabilitiesEvent) {
	if known := h.latest[e.SessionID]; known == nil || e.Version > known.Version {
		h.latest[e.SessionID], h.last = e, time.Now()
	}
	select {
	case h.news <- struct{}{}:
	default:
	}
}

func (h *capabilitiesHeard) hearOfMany(_ context.Context, e *events.CapabilitiesChangedEvent) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, of := range e.Sessions {
		h.keep(&events.SessionCapabilitiesEvent{SessionID: of.SessionID, Version: of.Version, Capabilities: e.Capabilities})
	}
	return nil
}

// until waits for what was heard, and returns when the last of it came.
func (h *capabilitiesHeard) until(all func() bool) time.Time {
	for {
		h.mu.Lock()
		done, last := all(), h.last
		h.mu.Unlock()
		if done {
			return last
		}
		<-h.news
	}
}
