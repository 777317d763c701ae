package membership

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// Config describes a Member.
type Config struct {
	// Registry keeps the node's entry. Required.
	Registry *mesh.Registry
	// Bus carries ServiceRegistrationEvent and ServiceHeartbeatEvent. The node is not announced before the queues of its static handlers are
	// read, unless the broker is away, which is no reason to wait. Default: none are published.
	Bus *bus.Bus

	// AppID is the kind of node this is. Default: "bannou".
	AppID string
	// InstanceID names this process among the instances. Default: a new UUID.
	InstanceID string
	// Services are the names of the host's services that others may call here. The member starts after them and leaves
	// before they stop.
	Services []string

	// Host and Port are where others reach this node. Default: the listener's, as Addr gives it; for a listener on all
	// addresses the system's host name, which in a container others resolve.
	Host string
	Port int
	// Addr is the listener's address when the member starts, (*host.Host).Addr. Required unless Host and Port are set.
	Addr func() net.Addr
	// ExternalHost is how the node is reached from outside. Default: none.
	ExternalHost string
	// Zone is where the node runs: callers prefer instances of their own zone. Default: not said.
	Zone string

	// Import reads what is in force in the mesh, the mappings above all, (*mesh.Directory).Refresh. The node is not announced
	// before it has succeeded once: whoever is called for a service routes by the mappings that its callers know. Default:
	// nothing is read.
	Import func(ctx context.Context) error

	// MaxConnections is how many requests at once count as full load: the node's capacity. Default: 1000.
	MaxConnections int
	// InFlight is how many requests are being served now, (*host.Host).InFlight. Default: always 0.
	InFlight func() int

	// Unmeasured: the instance is another process, which this one speaks for. Its capacity, its requests and its processor time are not
	// known here, and no load is reported: MaxConnections and InFlight are not used.
	Unmeasured bool

	// Interval is the time between heartbeats. Default: 30 s.
	Interval time.Duration
	// Timeout bounds each registration and heartbeat. Default: 5 s.
	Timeout time.Duration
	// DrainNotice is how long the node still takes requests after it said that it shuts down, so that callers hear of it before
	// they find the listener closed. Default: not at all.
	DrainNotice time.Duration
	// Logger hears of a registry that is away, and back. Default: nobody.
	Logger *slog.Logger
}

// A Member is this node's part in the mesh. It has the methods of a host's service and of its Drainer.
type Member struct {
	cfg  Config
	load *loadMeter

	mu     sync.Mutex
	status mesh.Status
	err    error // why the node is not in the registry, nil when it is
	joined bool  // it has imported, and was announced
	unsaid error // why the registry was not told that this node shuts down

	stopLoop context.CancelFunc
	loop     sync.WaitGroup
}

// NewMember checks the configuration. Nothing is registered before Start.
func NewMember(cfg Config) (*Member, error) {
	cfg.AppID = cmp.Or(cfg.AppID, mesh.DefaultAppID)
	cfg.MaxConnections = cmp.Or(cfg.MaxConnections, 1000)
	cfg.Interval = cmp.Or(cfg.Interval, mesh.HeartbeatInterval)
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	if cfg.InstanceID == "" {
		cfg.InstanceID = uuid.NewString()
	}
	if cfg.InFlight == nil {
		cfg.InFlight = func() int { return 0 }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Registry == nil {
		return nil, errors.New("membership: a member needs a registry")
	}
	if cfg.Addr == nil && (cfg.Host == "" || cfg.Port == 0) {
		return nil, errors.New("membership: a member needs the listener's address, or host and port")
	}
	m := &Member{cfg: cfg, status: mesh.StatusHealthy, load: newLoadMeter(), err: errors.New("not registered yet")}
	probe := mesh.Endpoint{AppID: cfg.AppID, InstanceID: cfg.InstanceID, Host: cmp.Or(cfg.Host, "localhost"),
		Port: cmp.Or(cfg.Port, 1), ExternalHost: cfg.ExternalHost, Services: cfg.Services, MaxConnections: cfg.MaxConnections,
		Zone: cfg.Zone}
	if err := probe.Validate(); err != nil {
		return nil, fmt.Errorf("membership: %w", err)
	}
	return m, nil
}

// Name is "membership".
func (m *Member) Name() string { return "membership" }

// DependsOn is the services that the member announces.
func (m *Member) DependsOn() []string { return slices.Clone(m.cfg.Services) }

// Announces makes the host start the member when all other services take requests.
func (m *Member) Announces() {}

// OpenAPI is none: a member has no paths.
func (m *Member) OpenAPI() []byte { return nil }

// Mount does nothing.
func (m *Member) Mount(*http.ServeMux) error { return nil }

// InstanceID names this process among the instances.
func (m *Member) InstanceID() string { return m.cfg.InstanceID }

// Start registers the node. When that does not succeed at once, it is tried again in the background.
func (m *Member) Start(ctx context.Context) error {
	if _, err := m.endpoint(); err != nil {
		return err
	}
	first, cancel := context.WithTimeout(ctx, min(m.cfg.Timeout, 2*time.Second))
	defer cancel()
	m.settle(m.register(first))
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	m.stopLoop = stop
	m.loop.Go(func() { m.run(life) })
	return nil
}

// Ready says why the node is not in the registry, if it is not.
func (m *Member) Ready(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return fmt.Errorf("not in the mesh's registry, trying again: %w", m.err)
	}
	return nil
}

// Drain tells the mesh that this node takes no more calls, and returns when callers had the time to hear it.
func (m *Member) Drain(ctx context.Context) {
	m.endLoop()
	m.mu.Lock()
	m.status = mesh.StatusShuttingDown
	m.mu.Unlock()
	said, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	err := m.beat(said)
	cancel()
	m.mu.Lock()
	m.unsaid = err
	m.mu.Unlock()
	if err != nil {
		m.cfg.Logger.Warn("the mesh was not told that this node shuts down; it finds out by itself", "error", err)
		return
	}
	notice := time.NewTimer(m.cfg.DrainNotice)
	defer notice.Stop()
	select {
	case <-notice.C:
	case <-ctx.Done():
	}
}

// lastTry is how long Stop waits for a registry that did not answer Drain a moment ago: others are to be stopped after
// the member, and whoever ends the process waits 10 s by default.
const lastTry = time.Second

// Stop takes the node out of the registry. A registry that is away forgets it by itself.
func (m *Member) Stop(ctx context.Context) error {
	m.endLoop()
	m.mu.Lock()
	limit := m.cfg.Timeout
	if m.unsaid != nil {
		limit = min(limit, lastTry)
	}
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, err := m.cfg.Registry.Deregister(ctx, m.cfg.AppID, m.cfg.InstanceID); err != nil {
		m.cfg.Logger.Warn("this node could not leave the registry; it is forgotten there after "+
			mesh.GoneAfter.String(), "error", err)
	}
	return nil
}

func (m *Member) endLoop() {
	if m.stopLoop != nil {
		m.stopLoop()
	}
	m.loop.Wait()
}

// run sends heartbeats until ctx ends; after one that failed the next comes sooner.
func (m *Member) run(ctx context.Context) {
	// A registry that is back is told soon: until then /readyz says that this node is not in it.
	const soonest, latest = time.Second, 5 * time.Second
	retry := soonest
	for {
		wait := m.cfg.Interval
		if m.failed() {
			wait = min(retry, m.cfg.Interval)
			retry = min(2*retry, latest)
		} else {
			retry = soonest
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		attempt, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
		say := m.beat
		if !m.hasJoined() {
			say = m.register
		}
		err := say(attempt)
		cancel()
		if ctx.Err() == nil {
			m.settle(err)
		}
	}
}

func (m *Member) hasJoined() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.joined
}

func (m *Member) failed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err != nil
}

// settle notes how the last attempt went, and logs a change.
func (m *Member) settle(err error) {
	m.mu.Lock()
	before := m.err
	m.err = err
	m.mu.Unlock()
	switch {
	case err != nil:
		m.cfg.Logger.Warn("this node could not say in the registry that it is alive; trying again", "error", err)
	case before != nil:
		m.cfg.Logger.Info("in the mesh's registry", "appId", m.cfg.AppID, "instanceId", m.cfg.InstanceID)
	}
}

// register imports what is in force, enters the node into the registry and announces it to programs that listen on the bus
// only.
func (m *Member) register(ctx context.Context) error {
	e, err := m.endpoint()
	if err != nil {
		return err
	}
	if m.cfg.Import != nil {
		if err := m.cfg.Import(ctx); err != nil {
			return fmt.Errorf("import the mappings: %w", err)
		}
	}
	if err := m.reading(ctx); err != nil {
		return err
	}
	if err := m.cfg.Registry.Register(ctx, e); err != nil {
		return err
	}
	m.mu.Lock()
	m.joined = true
	m.mu.Unlock()
	m.publish(ctx, events.TopicServiceRegistration, &events.ServiceRegistrationEvent{InstanceID: e.InstanceID,
		AppID: e.AppID, Host: e.Host, Port: e.Port, Services: e.Services, MaxConnections: e.MaxConnections})
	return nil
}

// reading waits until the handlers' queues are read: what callers of this node had published before would be handled by nobody.
func (m *Member) reading(ctx context.Context) error {
	if m.cfg.Bus == nil {
		return nil
	}
	const each, pause = 200 * time.Millisecond, 10 * time.Millisecond
	for {
		asking, cancel := context.WithTimeout(ctx, each)
		err := m.cfg.Bus.Ready(asking)
		cancel()
		if !errors.Is(err, bus.ErrNotReading) {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("the node is announced when its queues are read: %w", err)
		}
	}
}

// beat says that the node is alive, and how it is. A registry that has forgotten the node takes it in again.
func (m *Member) beat(ctx context.Context) error {
	e, err := m.endpoint()
	if err != nil {
		return err
	}
	said := time.Now()
	// Without a time of its own: a clock that was set back does not make this node unheard, above all not when it drains.
	if err := m.cfg.Registry.Heartbeat(ctx, e); err != nil {
		return err
	}
	event := &events.ServiceHeartbeatEvent{AppID: e.AppID, InstanceID: e.InstanceID,
		Status: events.EndpointStatus(e.Status), Services: e.Services, LoadPercent: e.LoadPercent,
		CurrentConnections: e.CurrentConnections, MaxConnections: e.MaxConnections, Host: e.Host, Port: e.Port,
		ExternalHost: e.ExternalHost}
	event.Timestamp = said.UTC()
	m.publish(ctx, events.TopicServiceHeartbeats, event)
	return nil
}

func (m *Member) publish(ctx context.Context, topic string, e bus.Event) {
	if m.cfg.Bus == nil {
		return
	}
	if _, err := m.cfg.Bus.PublishWith(ctx, topic, e, bus.PublishOptions{Transient: true}); err != nil {
		m.cfg.Logger.Debug("the bus did not take an announcement; the registry has it", "topic", topic, "error", err)
	}
}

// endpoint is the node as it is now.
func (m *Member) endpoint() (mesh.Endpoint, error) {
	at, port := m.cfg.Host, m.cfg.Port
	if at == "" || port == 0 {
		listener, ok := m.cfg.Addr().(*net.TCPAddr)
		if !ok {
			return mesh.Endpoint{}, errors.New("membership: the node does not listen on TCP; set host and port")
		}
		if at == "" && listener.IP.IsUnspecified() {
			name, err := os.Hostname()
			if err != nil {
				return mesh.Endpoint{}, fmt.Errorf("membership: the node listens on all addresses and the system has "+
					"no name; set the host that others reach it at: %w", err)
			}
			at = name
		}
		at, port = cmp.Or(at, listener.IP.String()), cmp.Or(port, listener.Port)
	}
	m.mu.Lock()
	status := m.status
	m.mu.Unlock()
	e := mesh.Endpoint{
		AppID: m.cfg.AppID, InstanceID: m.cfg.InstanceID, Host: at, Port: port, ExternalHost: m.cfg.ExternalHost,
		Status: status, Services: slices.Clone(m.cfg.Services), Zone: m.cfg.Zone,
	}
	if !m.cfg.Unmeasured {
		e.MaxConnections, e.CurrentConnections = m.cfg.MaxConnections, m.cfg.InFlight()
		e.LoadPercent = m.load.percent(e.CurrentConnections, e.MaxConnections)
	}
	return e, nil
}
