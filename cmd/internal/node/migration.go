package node

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/migrate"
)

// NewStateDriver makes the driver of a backend as a node would.
func NewStateDriver(cfg *config.Config, backend string, log *slog.Logger) (state.Driver, error) {
	redis.SetLogger(redisLog{log})
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

// CheckTarget refuses to migrate a store to a place whose keys could meet those of where it is, or of another store: what the new place has
// and the old one has not is deleted. The store that the place is named for is not another.
func CheckTarget(cfg *config.Config, from, to state.StoreConfig) error {
	if meet(from, to) {
		return fmt.Errorf("the store %q cannot be migrated to %s: its keys could meet those of where it is, %s; choose another key prefix or table",
			from.Name, where(to), where(from))
	}
	others := append(internalStores(cfg), programStores(cfg)...)
	for _, other := range slices.AppendSeq(others, maps.Values(targets(cfg))) {
		if other.Name != from.Name && other.Name != to.Name && meet(other, to) {
			return fmt.Errorf("the store %q cannot be migrated to %s: its keys could meet those of the store %q, %s; choose another key prefix or table",
				from.Name, where(to), other.Name, where(other))
		}
	}
	return nil
}

// checkTargets does so for all stores of the configuration.
func checkTargets(cfg *config.Config, stores []state.StoreConfig) error {
	to := targets(cfg)
	for _, s := range stores {
		if target, ok := to[s.Name]; ok {
			if err := CheckTarget(cfg, s, target); err != nil {
				return err
			}
		}
	}
	return nil
}

// meet reports whether keys of two stores could be the same, as a factory does for the stores that it has.
func meet(a, b state.StoreConfig) bool {
	if a.Backend != b.Backend {
		return false
	}
	if a.Backend != "redis" {
		switch {
		case tableOf(a) != tableOf(b):
			return false
		case !a.InDaprsTable() || !b.InDaprsTable():
			return a.Name == b.Name
		}
	}
	p, q := cmp.Or(a.KeyPrefix, a.Name)+":", cmp.Or(b.KeyPrefix, b.Name)+":"
	return strings.HasPrefix(p, q) || strings.HasPrefix(q, p)
}

func where(s state.StoreConfig) string {
	switch s.Backend {
	case "redis":
		return fmt.Sprintf("%s under the key prefix %q", s.Backend, cmp.Or(s.KeyPrefix, s.Name))
	case "dapr", "memory":
		return s.Backend
	}
	in := fmt.Sprintf("%s in the table %q", s.Backend, tableOf(s))
	if s.InDaprsTable() {
		in += fmt.Sprintf(" under the key prefix %q", s.KeyPrefix)
	}
	return in
}

// tableOf is the table of a store on SQL, as a factory has it.
func tableOf(s state.StoreConfig) string {
	if s.TableName == "" && s.InDaprsTable() {
		return state.DaprTable
	}
	return cmp.Or(s.TableName, "state_entries")
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
