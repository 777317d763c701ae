package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// The place that a store is migrated to shares no keys with another store, nor with where the store is.
func TestTargetsStandApart(t *testing.T) {
	goes := func(backend, prefix, table string) *config.Migration {
		m := &config.Migration{}
		m.To.Backend, m.To.KeyPrefix, m.To.TableName = backend, prefix, table
		return m
	}
	const redis, mysql = "redis", "mysql"
	for _, c := range []struct {
		name  string
		to    *config.Migration
		meets string // empty: nothing
	}{
		{"the prefix of another store", goes(redis, "guarded", ""), `"guarded"`},
		{"within that of another store", goes(redis, "guarded:open", ""), `"guarded"`},
		{"around that of another store", goes(redis, "a", ""), `"deep"`},
		{"the place another store goes to", goes(redis, "goes", ""), `"moving"`},
		{"a store of the node's own", goes(redis, "service", ""), "could meet"},
		{"a longer name", goes(redis, "guarded2", ""), ""},
		{"another table", goes(mysql, "", "other"), ""},
		{"another store's rows of an app of Dapr", goes(mysql, "shop||", ""), `"rows"`},
		{"the rows of another app of Dapr", goes(mysql, "shp||", ""), ""},
		{"where it is", goes(mysql, "", "state_entries"), "where it is"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := &config.Config{Services: []string{"state"}, State: config.State{RedisURL: "redis://h", MySQLDSN: "dsn", Stores: map[string]config.Store{
				"open":    {Backend: mysql, Migration: c.to},
				"guarded": {Backend: redis},
				"rows":    {Backend: mysql, KeyPrefix: "shop||"},
				"deep":    {Backend: redis, KeyPrefix: "a:b"},
				"moving":  {Backend: mysql, Migration: goes(redis, "goes", "")},
			}}}
			err := checkTargets(cfg, []state.StoreConfig{{Name: "open", Backend: mysql}})
			if c.meets == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.meets)
			_, _, err = newFactory(cfg, nil, nil, nil, nil, nil) // which is how a node starts
			require.ErrorContains(t, err, c.meets)
			require.ErrorContains(t, err, `"open"`)
		})
	}
}
