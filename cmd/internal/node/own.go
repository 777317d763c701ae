package node

import (
	"log/slog"
	"slices"

	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/host"
)

// Own is the service of a program that is not bannou itself. Package program documents it, its stores and its parts.
type Own struct {
	Name   string
	Stores []OwnStore
	New    func(OwnParts) (host.Service, error)
}

// OwnStore is a store of such a service.
type OwnStore struct {
	Name     string
	Expiring bool
	Indexes  []string
}

// OwnParts are what such a service is made of.
type OwnParts struct {
	Bus           *bus.Bus
	Factory       *state.Factory
	Mesh          *mesh.Client
	Logger        *slog.Logger
	MeterProvider metric.MeterProvider
}

// stores are those that the node opens for it, where the settings say when they name one. A nil Own has none.
func (o *Own) stores(cfg *config.Config) (stores []state.StoreConfig) {
	if o == nil {
		return nil
	}
	for _, s := range o.Stores {
		made := state.StoreConfig{Name: s.Name, Backend: cfg.BackendOf(s.Name, s.kind())}
		if set, named := cfg.State.Stores[s.Name]; named {
			if made.Backend != "dapr" {
				made.Backend = set.Backend
			}
			made = placed(made, set)
		}
		made.Indexes = s.Indexes
		stores = append(stores, made)
	}
	return stores
}

// kind is what the store's data is like, as in config.EngineFor.
func (s OwnStore) kind() string {
	if s.Expiring {
		return "redis"
	}
	return "mysql"
}

// engine is what keeps a store of the service natively, when no setting names it; empty: it is not its own.
func (o *Own) engine(cfg *config.Config, store string) string {
	if o == nil {
		return ""
	}
	for _, s := range o.Stores {
		if s.Name == store {
			return cfg.EngineFor(s.kind())
		}
	}
	return ""
}

// has reports whether a store is the service's own, which nobody reaches through the state service.
func (o *Own) has(store state.StoreConfig) bool {
	return o != nil && slices.ContainsFunc(o.Stores, func(s OwnStore) bool { return s.Name == store.Name })
}

func (p parts) ownService() (host.Service, error) {
	return p.own.New(OwnParts{Bus: p.busOf(p.own.Name), Factory: p.factory, Mesh: p.client, Logger: p.log, MeterProvider: p.meter})
}
