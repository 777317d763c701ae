package node

import (
	"errors"
	"log/slog"

	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/migrate"
)

// NewStateDriver makes the driver of a backend as a node would.
func NewStateDriver(cfg *config.Config, backend string, log *slog.Logger) (state.Driver, error) {
	return newStateDriver(cfg, backend, log)
}

// targets are where stores are migrated to, by their names.
func targets(cfg *config.Config) map[string]state.StoreConfig {
	to := map[string]state.StoreConfig{}
	for name, s := range cfg.AllStores() {
		if m := s.Migration; m != nil {
			to[name] = state.StoreConfig{Name: name, Backend: m.To.Backend, KeyPrefix: m.To.KeyPrefix, TableName: m.To.TableName, Indexes: s.Indexes}
		}
	}
	return to
}

// withMigrations makes drivers serve the stores that are migrated in both places. The drivers that it is given are closed when it fails.
func withMigrations(cfg *config.Config, stores []state.StoreConfig, drivers []state.Driver, meter metric.MeterProvider, log *slog.Logger) ([]state.Driver, error) {
	to := targets(cfg)
	byBackend := map[string]state.Driver{}
	for _, d := range drivers {
		byBackend[d.Backend()] = d
	}
	migrated := map[string]bool{} // backends that have such stores
	for _, s := range stores {
		if _, ok := to[s.Name]; ok {
			migrated[s.Backend] = true
		}
	}
	for i, d := range drivers {
		if !migrated[d.Backend()] {
			continue
		}
		wrapped, err := migrate.Wrap(d, migrate.Config{Logger: log, MeterProvider: meter, To: func(s state.StoreConfig) (migrate.Place, bool) {
			there, ok := to[s.Name]
			return migrate.Place{Driver: byBackend[there.Backend], Store: there}, ok
		}})
		if err != nil {
			return nil, errors.Join(err, closeAll(drivers))
		}
		drivers[i] = wrapped
	}
	return drivers, nil
}
