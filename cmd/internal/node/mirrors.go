package node

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mirror"
)

// counterpart is the other place of a store; false: it has no mirror.
func counterpart(cfg *config.Config, s state.StoreConfig) (state.StoreConfig, bool) {
	m, ok := cfg.State.Mirrors[s.Name]
	if !ok {
		return state.StoreConfig{}, false
	}
	set := cfg.State.Stores[s.Name] // which says the native place also while the store is on Dapr
	to := state.StoreConfig{
		Name: s.Name, Backend: m.To, Indexes: s.Indexes,
		KeyPrefix: cmp.Or(m.KeyPrefix, s.KeyPrefix, set.KeyPrefix, s.Name), TableName: cmp.Or(m.TableName, s.TableName, set.TableName),
	}
	to.TableName = tableOf(to) // as a factory has it, which opens no counterparts
	return to, true
}

// nativePlace is where a store is, or would be if it were not on Dapr.
func nativePlace(cfg *config.Config, own *Own, s state.StoreConfig) state.StoreConfig {
	if s.Backend != "dapr" {
		return s
	}
	place := state.StoreConfig{Name: s.Name}
	if set, known := cfg.NativeStore(s.Name); known {
		place.Backend = set.Backend
		return placed(place, set)
	}
	place.Backend = own.engine(cfg, s.Name)
	return place
}

// checkSeen refuses what a mirror has found as a reason to switch a store, where the mirror looks at another place than the store would go to.
// A store without a mirror is nothing to it.
func checkSeen(cfg *config.Config, own *Own, s state.StoreConfig, to string) error {
	seen, mirrored := counterpart(cfg, s)
	if !mirrored {
		return nil
	}
	if to == "dapr" {
		if seen.Backend != "dapr" {
			return fmt.Errorf("its mirror compares it with %s, and not with what Dapr has: set state.mirrors.%s.to to dapr", where(seen), s.Name)
		}
		return nil
	}
	if place := nativePlace(cfg, own, s); seen.Backend != place.Backend || where(seen) != where(place) {
		return fmt.Errorf("its mirror compares it with %s, and natively it would be on %s: name that place in state.mirrors.%s, or the other one in state.stores.%s",
			where(seen), where(place), s.Name, s.Name)
	}
	return nil
}

// counterparts are those of all stores.
func counterparts(cfg *config.Config, stores []state.StoreConfig) (all []state.StoreConfig) {
	for _, s := range stores {
		if to, ok := counterpart(cfg, s); ok {
			all = append(all, to)
		}
	}
	return all
}

// withMirrors makes drivers compare the stores that have a mirror. Plain are the drivers that the counterparts are on. Drivers are closed
// when it fails.
func withMirrors(cfg *config.Config, stores []state.StoreConfig, drivers, plain []state.Driver, ledger *mirror.Ledger, meter metric.MeterProvider, log *slog.Logger) ([]state.Driver, error) {
	if len(cfg.State.Mirrors) == 0 {
		return drivers, nil
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.State.Mirrors)) {
		if !slices.ContainsFunc(stores, func(s state.StoreConfig) bool { return s.Name == name }) { // a file may be that of several nodes
			log.Warn("state.mirrors names a store that this node does not have: nothing is compared for it", "store", name)
		}
	}
	if err := checkCounterparts(cfg, stores); err != nil {
		return nil, errors.Join(err, closeAll(drivers))
	}
	byBackend := map[string]state.Driver{}
	for _, d := range plain {
		byBackend[d.Backend()] = d
	}
	mirrored := map[string]bool{}           // backends that have such stores
	named := map[string]state.StoreConfig{} // as they are named: a factory opens them with its defaults, which would stand before what is set
	for _, s := range stores {
		named[s.Name] = s
		if _, ok := counterpart(cfg, s); ok {
			mirrored[s.Backend] = true
		}
	}
	for i, d := range drivers {
		if !mirrored[d.Backend()] {
			continue
		}
		wrapped, err := mirror.Wrap(d, mirror.Config{Ledger: ledger, Logger: log, MeterProvider: meter, To: func(opened state.StoreConfig) (mirror.Counterpart, bool) {
			m := cfg.State.Mirrors[opened.Name]
			to, ok := counterpart(cfg, named[opened.Name])
			share := 1.0
			if m.Sample != nil {
				share = *m.Sample
			}
			return mirror.Counterpart{Driver: byBackend[to.Backend], Store: to, Sample: share, Writes: m.Writes, ETags: m.ETags, NoExpiry: m.NoExpiry}, ok
		}})
		if err != nil {
			return nil, errors.Join(err, closeAll(drivers))
		}
		drivers[i] = wrapped
	}
	return drivers, nil
}

// checkCounterparts refuses to carry changes to where another store's keys could be.
func checkCounterparts(cfg *config.Config, stores []state.StoreConfig) error {
	for _, s := range stores {
		to, ok := counterpart(cfg, s)
		if !ok || !cfg.State.Mirrors[s.Name].Writes || to.Backend == "dapr" {
			continue
		}
		for _, other := range stores {
			if other.Name != s.Name && meet(other, to) {
				return fmt.Errorf("state.mirrors.%s carries changes to %s, where they could meet the keys of the store %q, %s; choose another key prefix or table",
					s.Name, where(to), other.Name, where(other))
			}
		}
	}
	return nil
}
