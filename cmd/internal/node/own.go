package node

import (
	"log/slog"

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

// stores are those that the node opens for it. A nil Own has none.
func (o *Own) stores(cfg *config.Config) (stores []state.StoreConfig) {
	if o == nil {
		return nil
	}
	for _, s := range o.Stores {
		kind := "mysql"
		if s.Expiring {
			kind = "redis"
		}
		stores = append(stores, state.StoreConfig{Name: s.Name, Backend: cfg.BackendOf(s.Name, kind), Indexes: s.Indexes})
	}
	return stores
}

func (p parts) ownService() (host.Service, error) {
	return p.own.New(OwnParts{Bus: p.busOf(p.own.Name), Factory: p.factory, Mesh: p.client, Logger: p.log, MeterProvider: p.meter})
}
