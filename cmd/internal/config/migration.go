package config

import (
	"errors"
	"fmt"
	"slices"
)

// checkMigration refuses a migration that no command could carry out.
func (c *Config) checkMigration(name string, s Store) error {
	if s.Migration == nil {
		return nil
	}
	to := s.Migration.To
	key := storesKey + "." + name + ".migration.to"
	switch {
	case s.Backend == onDapr || to.Backend == onDapr || c.StateOn(name) == onDapr:
		return fmt.Errorf("%s: the store is on Dapr, by %s, or would be: a migration copies between this node's own servers; switch the store by %s instead", key, c.state.of[name].from, variableOf("STATE", name))
	case s.Backend == "memory" || to.Backend == "memory":
		return fmt.Errorf("%s: what a node has in memory, no other process can read: choose redis, mysql or sqlite on both sides", key)
	case !slices.Contains(backends(), to.Backend):
		return fmt.Errorf("%s.backend is %q: choose from redis, mysql, sqlite", key, to.Backend)
	case to.Backend == s.Backend && to.KeyPrefix == s.KeyPrefix && to.TableName == s.TableName:
		return fmt.Errorf("%s is where the store is: name another backend, keyPrefix or tableName", key)
	}
	if err := c.HasAddress(to.Backend); err != nil {
		return fmt.Errorf("%s.backend is %s: %w", key, to.Backend, err)
	}
	return nil
}

// HasAddress says what is missing to use a backend.
func (c *Config) HasAddress(backend string) error {
	switch {
	case c.EngineFor(backend) == backend:
		return nil
	case backend == string(expiring):
		return errors.New("no address of Redis is set: give --state-redis-url")
	default:
		return errors.New("no address of MySQL is set: give --state-mysql-dsn")
	}
}
