package config

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
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
func backends() []string { return []string{"redis", "mysql", "sqlite", "memory", onDapr} }

// AllStores gives every store of the node with the engine that keeps it: the default ones, replaced and joined by those of
// the YAML file.
func (c *Config) AllStores() map[string]Store {
	stores := map[string]Store{}
	for name, k := range defaultStores() {
		stores[name] = Store{Backend: c.EngineFor(string(k))}
	}
	maps.Copy(stores, c.State.Stores)
	for name, s := range stores {
		if c.StateOn(name) == onDapr { // where native engines' names for places mean nothing
			stores[name] = Store{Backend: onDapr, DefaultTTL: s.DefaultTTL, PublishChanges: s.PublishChanges, Access: s.Access, Migration: s.Migration}
		}
	}
	return stores
}

// NativeStore is where a store is, or would be if it were not on Dapr; false: it is none of AllStores.
func (c *Config) NativeStore(name string) (Store, bool) {
	if s, named := c.State.Stores[name]; named {
		return s, true
	}
	k, known := defaultStores()[name]
	return Store{Backend: c.EngineFor(string(k))}, known
}

// BackendOf is what keeps a store of a program, whose data is of a kind as in EngineFor.
func (c *Config) BackendOf(store, kind string) string {
	if c.StateOn(store) == onDapr {
		return onDapr
	}
	return c.EngineFor(kind)
}

// EngineFor is the engine that stands for redis or mysql on this node: themselves when they are configured, otherwise
// memory and SQLite.
func (c *Config) EngineFor(backend string) string {
	switch {
	case backend == string(expiring) && !c.State.hasRedis():
		return "memory"
	case backend == string(lasting) && c.State.MySQLDSN == "":
		return "sqlite"
	default:
		return backend
	}
}

// hasRedis reports whether an address of a Redis is set, in one of the three ways.
func (s *State) hasRedis() bool {
	return s.RedisURL != "" || len(s.RedisClusterURLs) > 0 || len(s.RedisSentinelURLs) > 0
}

// checkRedis checks how the Redis of the stores is named.
func (s *State) checkRedis() error {
	ways := 0
	for _, given := range []bool{s.RedisURL != "", len(s.RedisClusterURLs) > 0, len(s.RedisSentinelURLs) > 0} {
		if given {
			ways++
		}
	}
	switch {
	case ways > 1:
		return errors.New("--state-redis-url, --state-redis-cluster-urls and --state-redis-sentinel-urls are three ways to name the Redis of the stores: give one of them")
	case len(s.RedisSentinelURLs) > 0 && s.RedisMasterName == "":
		return errors.New("--state-redis-sentinel-urls needs the name by which the Sentinels know the Redis: set --state-redis-master-name")
	case len(s.RedisSentinelURLs) == 0 && s.RedisMasterName != "":
		return errors.New("--state-redis-master-name is a name that Sentinels know: set --state-redis-sentinel-urls, or leave it out")
	}
	for _, list := range []struct {
		flag string
		urls []string
	}{{"--state-redis-cluster-urls", s.RedisClusterURLs}, {"--state-redis-sentinel-urls", s.RedisSentinelURLs}} {
		if err := alike(list.urls); err != nil {
			return fmt.Errorf("%s: %w", list.flag, err)
		}
	}
	for _, address := range s.RedisClusterURLs {
		u, err := url.Parse(address)
		if err == nil && u.Scheme != "unix" && !slices.Contains([]string{"", "0"}, strings.Trim(u.Path, "/")) {
			return errors.New("--state-redis-cluster-urls: a Redis Cluster has no databases but the first: end the addresses with the port")
		}
	}
	return nil
}

// alike refuses addresses that differ in more than host and port: the others' user, password, database and encryption
// would be passed over. It repeats none of them.
func alike(addresses []string) error {
	for i := 1; i < len(addresses); i++ {
		first, err := url.Parse(addresses[0])
		if err != nil {
			return nil //nolint:nilerr // another check tells of it
		}
		other, err := url.Parse(addresses[i])
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		other.Host = first.Host
		if first.String() != other.String() {
			return fmt.Errorf("address %d differs from the first in more than host and port: scheme, user, password and what follows the port are the same for all", i+1)
		}
	}
	return nil
}

func (c *Config) checkStores() error {
	for _, name := range slices.Sorted(maps.Keys(c.State.Stores)) {
		s := c.State.Stores[name]
		switch {
		case !slices.Contains(backends(), s.Backend):
			return fmt.Errorf("%s.%s.backend is %q: choose from %s", storesKey, name, s.Backend, strings.Join(backends(), ", "))
		case c.EngineFor(s.Backend) != s.Backend:
			return fmt.Errorf("%s.%s.backend is %s, and no address of it is set: give --state-redis-url (or the addresses of a cluster or of Sentinels) or --state-mysql-dsn", storesKey, name, s.Backend)
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
