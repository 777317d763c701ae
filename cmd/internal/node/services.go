package node

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/accounts"
	"github.com/bannou-mesh/bannou/services/auth"
	"github.com/bannou-mesh/bannou/services/connect"
	"github.com/bannou-mesh/bannou/services/egress"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/membership"
	meshsvc "github.com/bannou-mesh/bannou/services/mesh"
	"github.com/bannou-mesh/bannou/services/messaging"
	"github.com/bannou-mesh/bannou/services/permissions"
	"github.com/bannou-mesh/bannou/services/relay"
	statesvc "github.com/bannou-mesh/bannou/services/state"
)

// parts are what services are made of.
type parts struct {
	cfg      *config.Config
	log      *slog.Logger
	bus      *bus.Bus
	sidecar  *sidecar // nil: no service is on one
	broker   bus.Driver
	factory  *state.Factory
	registry *mesh.Registry
	client   *mesh.Client
	policy   *egress.Policy
	apps     *guard.Tokens
	guard    *guard.Guard
	meter    metric.MeterProvider
	outboxes map[string]*relay.Relay // of stores, by the names that operators see

	events     state.Driver // of the log of events; nil: it is in memory
	shared     *sharedLog
	own        *Own // nil: the suite's services only
	instanceID string
}

// service makes the service of that name. A new service of the suite gets its line here and in config.AllServices.
func (p parts) service(name string) (host.Service, error) {
	switch name {
	case "messaging":
		return p.messaging()
	case "state":
		return p.state()
	case "mesh":
		return p.mesh()
	case "events":
		return p.eventLog()
	case "accounts":
		return p.accounts()
	case "auth":
		return p.auth()
	case "permissions":
		return permissions.New(permissions.Config{Factory: p.factory, Bus: p.busOf("permissions"), SessionTTL: p.cfg.Auth.SessionTTL, Logger: p.log})
	case "connect":
		return p.connect()
	case "sagas":
		return p.sagas()
	case "game-session":
		return p.gameSession()
	default:
		if p.own != nil && name == p.own.Name {
			return p.ownService()
		}
		return nil, fmt.Errorf("no service is called %q", name)
	}
}

// state makes the state service, with the rules of its stores.
func (p parts) state() (host.Service, error) {
	access, err := newAccess(p.cfg, p.apps)
	if err != nil {
		return nil, err
	}
	return statesvc.New(statesvc.Config{Factory: p.factory, Internal: internalNames(p.own), Access: access, MeterProvider: p.meter})
}

// mesh makes the mesh service, which probes if it is told to.
func (p parts) mesh() (host.Service, error) {
	cfg := meshsvc.Config{Registry: p.registry, Client: p.client, Policy: p.policy, Bus: p.bus, Logger: p.log}
	if m := p.cfg.Mesh; m.ProbeInterval > 0 {
		transport := p.policy.Transport()
		transport.DisableKeepAlives = true // a kept connection says nothing about new ones
		var err error
		if cfg.Prober, err = mesh.NewProber(mesh.ProberConfig{
			Registry: p.registry, Interval: m.ProbeInterval, Timeout: m.ProbeTimeout, Failures: m.ProbeFailures, Transport: transport, TLS: p.guard.Client(), Logger: p.log,
		}); err != nil {
			return nil, err
		}
	}
	return meshsvc.New(cfg)
}

// newAccess is nil when no store has a rule: then no token is asked for.
func newAccess(cfg *config.Config, apps *guard.Tokens) (*guard.Access, error) {
	rules := map[string]guard.AccessRule{}
	for name, store := range cfg.AllStores() {
		if store.Access != nil {
			rules[name] = guard.AccessRule{Read: store.Access.Read, Write: store.Access.Write}
		}
	}
	access, err := guard.NewAccess(apps, "store", rules)
	if err != nil || len(rules) == 0 {
		return nil, err
	}
	return access, nil
}

// messaging makes the messaging service. A broker that is this process's memory is never away, and needs no outbox.
func (p parts) messaging() (host.Service, error) {
	m := p.cfg.Messaging
	cfg := messaging.Config{
		Bus: p.bus, Policy: p.policy, Factory: p.factory, AppID: p.cfg.AppID,
		AnnouncePublished: m.AnnouncePublished, Logger: p.log, MeterProvider: p.meter, OutboxAfter: m.OutboxAfter, Outboxes: p.outboxes,
		MayPublish: func(ctx context.Context, topic string) error {
			if membership.IsTopic(topic) {
				return p.guard.MayAnnounce(ctx, topic)
			}
			return p.guard.MayPublish(ctx, topic)
		},
		MaySubscribe: p.guard.MaySubscribe,
	}
	if m.Outbox && m.Backend != "memory" {
		ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
		defer cancel()
		var err error
		if cfg.Outbox, err = p.factory.Outbox(ctx, p.cfg.EngineFor("mysql"), state.OutboxConfig{
			Name: p.cfg.AppID, MaxEntries: int64(m.OutboxMaxEvents), MaxBytes: int64(m.OutboxMaxBytes),
		}); err != nil {
			return nil, err
		}
	}
	return messaging.New(cfg)
}

// openTimeout bounds making the outbox's tables in the embedded storage.
const openTimeout = 30 * time.Second

// internalNames are the stores that the state service shows to nobody.
func internalNames(own *Own) []string {
	names := []string{membership.ServiceStore, membership.ConfigStore, messaging.SubscriptionStore,
		accounts.ListStore, auth.SessionStore, auth.CredentialStore, auth.KeyStore,
		permissions.ServiceStore, permissions.SessionStore, connect.SessionStore}
	if own != nil {
		for _, s := range own.Stores {
			names = append(names, s.Name)
		}
	}
	return names
}

// paths are the first parts of the paths that the services answer, which is how the mesh knows that a call is for this
// node. The mesh service answers for the orchestrator's paths too.
func paths(services []string) []string {
	all := append([]string(nil), services...)
	for _, s := range services {
		if s == "mesh" {
			all = append(all, "orchestrator")
		}
	}
	return all
}
