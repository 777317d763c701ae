// Package node wires a node: drivers by the configuration, the three libraries over them, and the services over those. It
// is the only place that names concrete drivers.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mirror"
	"github.com/bannou-mesh/bannou/services/egress"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/incident"
	"github.com/bannou-mesh/bannou/services/membership"
	"github.com/bannou-mesh/bannou/services/messaging"
	"github.com/bannou-mesh/bannou/services/registrar"
	"github.com/bannou-mesh/bannou/services/relay"
	statesvc "github.com/bannou-mesh/bannou/services/state"
)

// closeTimeout bounds what is left to do when the services have stopped.
const closeTimeout = 15 * time.Second

// answerMargin is how long before its deadline a check that waits gives up.
const answerMargin = 200 * time.Millisecond

// A Node is a wired process. Run it once.
type Node struct {
	host      *host.Host
	broker    bus.Driver
	bus       *bus.Bus
	factory   *state.Factory
	directory *mesh.Directory
	metrics   *host.Metrics
	apps      *guard.Tokens
	guard     *guard.Guard // nil: everyone is let in
	incidents *incident.Reporter
	circuits  *membership.Circuits
	tracing   tracing
	own       *Own
	messaging *messaging.Service // nil: not among the services
	folder    *os.File           // the claim on the data folder, nil without one
	dapr      *dapr              // nil: Dapr's API is not served
	sidecar   *sidecar           // nil: neither messaging nor calls of it go through one
	end       context.CancelFunc // ends Run, as a signal does
	ended     context.Context    //nolint:containedctx // it is what end ends

	ledger        *mirror.Ledger // what mirrors of stores find
	counting      *counting      // nil: no events are counted on two brokers
	announcements *statesvc.Announcements
	events        state.Driver // of the log of events, which the factory closes; nil: it is in memory, or there is none
}

// Options are what no setting says. The zero value is that of a node.
type Options struct {
	// Broker stands between the bus and its driver, in programs that try a node out. Default: nothing does.
	Broker func(bus.Driver) bus.Driver
	// Own is the service of another program than bannou itself. Default: none.
	Own *Own
}

// New wires a node from a resolved configuration. Nothing runs yet, and no server is waited for. What it opened is closed
// again when it fails.
func New(cfg *config.Config, version string, listener net.Listener, log *slog.Logger, o Options) (n *Node, err error) {
	n = &Node{own: o.Own, ledger: mirror.NewLedger()}
	n.ended, n.end = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close(context.Background()))
		}
	}()
	if n.metrics, err = host.NewMetrics(); err != nil {
		return n, err
	}
	instanceID := cmp.Or(cfg.InstanceID, uuid.NewString())
	if n.incidents, err = newReporter(cfg, instanceID, n.metrics, log); err != nil {
		return n, err
	}
	if n.tracing, err = newTracing(cfg, instanceID, version, log); err != nil {
		return n, err
	}
	if n.apps, err = cfg.Tokens(log); err != nil {
		return n, err
	}
	if n.guard, err = n.newGuard(cfg, log); err != nil {
		return n, err
	}
	if n.host, err = host.New(host.Config{
		Listener: listener, TLS: n.guard.Server(), Admit: admit(cfg.AppID, n.guard), DrainTimeout: cfg.DrainTimeout, Logger: log, Metrics: n.metrics, Version: version,
		RequestContext: mesh.WithRequestID, // calls made for a request carry its id on
		Middleware:     mesh.Inbound,       // what is left of the time counts
		OnFailure:      n.incidents.RequestFailed,
		TracerProvider: n.tracing.tracer(),
	}); err != nil {
		return n, err
	}
	if n.broker, err = newBroker(cfg, n.metrics, log); err != nil {
		return n, err
	}
	if n.broker, err = sharing(cfg, "", n.broker, log); err != nil {
		return n, err
	}
	if o.Broker != nil {
		n.broker = o.Broker(n.broker)
	}
	if n.bus, err = newBus(cfg, n, log); err != nil {
		return n, err
	}
	if n.sidecar, err = newSidecar(cfg, n, log); err != nil {
		return n, err
	}
	n.announcements = newAnnouncements(cfg, n, log)
	if n.factory, n.events, err = newFactory(cfg, n.own, n.metrics, n.ledger, n.announcements, log); err != nil {
		return n, err
	}
	if n.folder, err = claimFolder(cfg, n.factory.Stores()); err != nil {
		return n, err
	}
	n.host.AddDependency("bus", n.busReady)
	n.host.AddDependency("state", n.factory.Ready)
	return n, n.addServices(cfg, instanceID, version, log)
}

// busReady shows that the broker is away, which does not make the node unready while it can keep what is published: an
// orchestrator that took the node's callers away, or restarted it, would turn the broker's outage into one of the services
// that publish. That the broker is there, and the queue of a handler is not, does: what is published meanwhile would be handled by nobody.
func (n *Node) busReady(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok { // answer before the host gives up
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-answerMargin))
		defer cancel()
	}
	err := n.bus.Ready(ctx)
	if err != nil && !errors.Is(err, bus.ErrNotReading) && n.keepsEvents() {
		return host.Degraded(err)
	}
	return err
}

// keepsEvents reports whether what this node's callers have it publish is kept while the broker is away.
func (n *Node) keepsEvents() bool {
	if n.messaging != nil {
		return n.messaging.Spools() == nil
	}
	return n.announcements.Outboxes()
}

// addServices makes the mesh's parts and puts the chosen services on the host.
func (n *Node) addServices(cfg *config.Config, instanceID, version string, log *slog.Logger) error {
	table, err := membership.NewTable(n.factory)
	if err != nil {
		return err
	}
	feed := membership.NewFeed(n.bus, log)
	registry, err := mesh.NewRegistry(table, feed, mesh.RegistryConfig{Logger: log})
	if err != nil {
		return err
	}
	n.directory = mesh.NewDirectory(registry, feed, mesh.DirectoryConfig{Logger: log, MeterProvider: n.metrics.MeterProvider()})
	policy, err := egress.New(egress.Config{Networks: cfg.Egress.Allow})
	if err != nil {
		return fmt.Errorf("--egress-allow: %w", err)
	}
	member, err := n.newMember(cfg, instanceID, registry, log)
	if err != nil {
		return err
	}
	calls, err := calling(&cfg.Mesh)
	if err != nil {
		return err
	}
	calls.Directory, calls.AppID, calls.InstanceID = n.directory, cfg.AppID, member.InstanceID()
	calls.Local, calls.LocalServices, calls.Control = n.guard.Local(n.host.Local()), paths(cfg.Services), policy.Control
	calls.Authorize, calls.TLS = n.guard.Authorize, n.guard.Client()
	if calls.Carrier, err = newCarrier(cfg); err != nil {
		return err
	}
	n.circuits = membership.NewCircuits(member.InstanceID(), log)
	calls.Circuits = n.circuits.Changed
	calls.Logger, calls.MeterProvider, calls.TracerProvider = log, n.metrics.MeterProvider(), n.tracing.tracer()
	client, err := mesh.NewClient(calls)
	if err != nil {
		return err
	}
	if n.sidecar != nil { // as the next
		if err := n.host.Add(n.sidecar); err != nil {
			return err
		}
	}
	if n.announcements.Outboxes() { // before the services, so that it stops after them
		if err := n.host.Add(n.announcements); err != nil {
			return err
		}
	}
	parts := parts{cfg: cfg, log: log, bus: n.bus, sidecar: n.sidecar, broker: n.broker, factory: n.factory, registry: registry, client: client, policy: policy,
		apps: n.apps, guard: n.guard, meter: n.metrics.MeterProvider(), events: n.events, shared: new(sharedLog), own: n.own, instanceID: member.InstanceID(),
		outboxes: map[string]*relay.Relay{}}
	for backend, r := range n.announcements.Relays() {
		parts.outboxes["state/"+backend] = r
	}
	endpoints, err := registrar.New(registrar.Config{Bus: n.bus, AppID: cfg.AppID, Logger: log})
	if err != nil {
		return err
	}
	for _, name := range cfg.Services {
		service, err := parts.service(name)
		if err != nil {
			return err
		}
		if err := endpoints.Add(service); err != nil {
			return err
		}
		if err := n.host.Add(service); err != nil {
			return err
		}
		if m, ok := service.(*messaging.Service); ok {
			n.messaging = m
		}
	}
	if err := n.host.Add(endpoints); err != nil {
		return err
	}
	if err := n.addCounting(cfg, log); err != nil {
		return err
	}
	switching, err := n.newMigration(cfg, member.InstanceID(), log)
	if err != nil {
		return err
	}
	if err := n.host.Add(switching); err != nil {
		return err
	}
	if err := n.host.Add(member); err != nil || cfg.Dapr.Listen == "" {
		return err
	}
	return n.addDapr(cfg, registry, client, version, log)
}

// addDapr puts Dapr's API on the host, and the app that it is for into the mesh.
func (n *Node) addDapr(cfg *config.Config, registry *mesh.Registry, client *mesh.Client, version string, log *slog.Logger) error {
	var err error
	if n.dapr, err = newDapr(n, cfg, client, version, log); err != nil {
		n.dapr = nil // it has closed what it had opened
		return err
	}
	if err := n.host.Add(n.dapr.service); err != nil || cfg.Dapr.AppAddress == "" || cfg.Dapr.AppProtocol == "grpc" && n.dapr.calls == nil {
		return err
	}
	member, err := newAppMember(n, cfg, registry, log)
	if err != nil {
		return err
	}
	return n.host.Add(member)
}

func (n *Node) newMember(cfg *config.Config, instanceID string, registry *mesh.Registry, log *slog.Logger) (*membership.Member, error) {
	member := membership.Config{
		Registry: registry, Bus: n.bus, AppID: cfg.AppID, InstanceID: instanceID, Services: cfg.Services,
		Addr: n.host.Addr, InFlight: n.host.InFlight, Interval: cfg.Mesh.HeartbeatInterval, Logger: log,
		Zone: cfg.Mesh.Zone, MaxConnections: cfg.Mesh.MaxConnections, Import: n.directory.Refresh,
	}
	if cfg.Messaging.Backend != "memory" { // else there is nobody to hear it
		member.DrainNotice = min(cfg.Mesh.DrainNotice, cfg.DrainTimeout/2)
	}
	if cfg.Advertise != "" {
		name, port, err := net.SplitHostPort(cfg.Advertise)
		if err != nil {
			return nil, err
		}
		if member.Port, err = strconv.Atoi(port); err != nil {
			return nil, err
		}
		member.Host = name
	}
	return membership.NewMember(member)
}

// Run serves until the context ends, then drains and closes everything.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancelRun := context.WithCancel(ctx)
	defer cancelRun()
	defer context.AfterFunc(n.ended, cancelRun)() //nolint:contextcheck // it ends by itself
	// Bus and directory outlive the services, which use them while they stop.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var background sync.WaitGroup
	var busErr, sidecarErr, directoryErr error
	background.Go(func() { busErr = n.bus.Run(life) })
	background.Go(func() { sidecarErr = n.sidecar.run(life) })
	background.Go(func() { directoryErr = n.directory.Run(life) })

	// So do the incidents, which end before the bus that tells of them.
	reporting, endReports := context.WithCancel(life)
	defer endReports()
	var reports sync.WaitGroup
	reports.Go(func() { n.incidents.Run(reporting, n.bus) })
	reports.Go(func() { n.circuits.Run(reporting, n.bus) })

	err := n.host.Run(ctx)

	endReports()
	reports.Wait()
	closing, cancel := context.WithTimeout(life, closeTimeout)
	defer cancel()
	err = errors.Join(err, n.bus.Close(closing))
	end()
	background.Wait()
	if errors.Is(directoryErr, context.Canceled) {
		directoryErr = nil
	}
	return errors.Join(err, busErr, sidecarErr, directoryErr, n.close(ctx))
}

// close releases what New opened and Run has not closed, also when the context has ended.
func (n *Node) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	var errs []error
	n.end()
	if n.dapr != nil {
		errs = append(errs, n.dapr.close(ctx))
	}
	if n.sidecar != nil {
		errs = append(errs, n.sidecar.close(ctx))
	}
	if n.bus != nil {
		errs = append(errs, n.bus.Close(ctx))
	}
	if n.broker != nil {
		errs = append(errs, n.broker.Close(ctx)) // the bus, which others might share a driver with, leaves it open
	}
	if n.counting != nil {
		errs = append(errs, n.counting.close(ctx))
	}
	if n.factory != nil {
		errs = append(errs, n.factory.Close())
	}
	n.tracing.close(ctx)
	if n.metrics != nil {
		errs = append(errs, n.metrics.Close(ctx))
	}
	if n.folder != nil {
		errs = append(errs, n.folder.Close())
	}
	return errors.Join(errs...)
}
