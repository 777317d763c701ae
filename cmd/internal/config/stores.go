package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
)

// A kind of store says what its data is like, and so which engine keeps it: sessions that expire, or what must last.
type kind string

const (
	expiring kind = "redis" // memory when no Redis is configured
	lasting  kind = "mysql" // SQLite when no MySQL is configured
)

// defaultStores are the stores of a node, by the kind of their data.
func defaultStores() map[string]kind {
	return map[string]kind{
		"auth": expiring, "connect": expiring, "permissions": expiring,
		"accounts": lasting, "character": lasting, "game-session": lasting, "location": lasting, "realm": lasting,
		"relationship": lasting, "relationship-type": lasting, "servicedata": lasting, "species": lasting, "subscriptions": lasting,
	}
}

// backends are the engines that a store may name.
func backends() []string { return []string{"redis", "mysql", "sqlite", "memory"} }

// AllStores gives every store of the node with the engine that keeps it: the default ones, replaced and joined by those of
// the YAML file.
func (c *Config) AllStores() map[string]Store {
	stores := map[string]Store{}
	for name, k := range defaultStores() {
		stores[name] = Store{Backend: c.EngineFor(string(k))}
	}
	maps.Copy(stores, c.State.Stores)
	return stores
}

// EngineFor is the engine that stands for redis or mysql on this node: themselves when they are configured, otherwise
// memory and SQLite.
func (c *Config) EngineFor(backend string) string {
	switch {
	case backend == string(expiring) && c.State.RedisURL == "":
		return "memory"
	case backend == string(lasting) && c.State.MySQLDSN == "":
		return "sqlite"
	default:
		return backend
	}
}

func (c *Config) checkStores() error {
	for _, name := range slices.Sorted(maps.Keys(c.State.Stores)) {
		s := c.State.Stores[name]
		switch {
		case !slices.Contains(backends(), s.Backend):
			return fmt.Errorf("%s.%s.backend is %q: choose from %s", storesKey, name, s.Backend, strings.Join(backends(), ", "))
		case c.EngineFor(s.Backend) != s.Backend:
			return fmt.Errorf("%s.%s.backend is %s, and no address of it is set: give --state-redis-url or --state-mysql-dsn", storesKey, name, s.Backend)
		case s.DefaultTTL < 0:
			return fmt.Errorf("%s.%s.defaultTtl is %d: it is a number of seconds, 0 for none", storesKey, name, s.DefaultTTL)
		}
		if err := c.checkMigration(name, s); err != nil {
			return err
		}
	}
	return nil
}

// strict refuses members of a store that do not exist and values of a wrong type.
func strict(into any) *mapstructure.DecoderConfig {
	return &mapstructure.DecoderConfig{Result: into, TagName: "koanf", ErrorUnused: true}
}
