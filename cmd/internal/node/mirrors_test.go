package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// What a mirror has found says something of a switch only when it looks at the place that the store would go to.
func TestMirrorsOfAnotherPlaceAreNoReason(t *testing.T) {
	own := &Own{Stores: []OwnStore{{Name: "records"}}}
	for name, c := range map[string]struct {
		store   string
		on, to  string
		mirror  config.Mirror
		refused string // empty: it is a reason
	}{
		"the native rows":                     {"accounts", "dapr", "native", config.Mirror{To: "redis"}, ""},
		"the native rows, named":              {"accounts", "dapr", "native", config.Mirror{To: "redis", KeyPrefix: "shop||"}, ""},
		"other rows of the same server":       {"accounts", "dapr", "native", config.Mirror{To: "redis", KeyPrefix: "accounts"}, `under the key prefix "shop||"`},
		"another server":                      {"accounts", "dapr", "native", config.Mirror{To: "mysql"}, `natively it would be on redis`},
		"itself":                              {"accounts", "dapr", "native", config.Mirror{To: "dapr"}, "compares it with dapr"},
		"a store that is in memory natively":  {"auth2", "dapr", "native", config.Mirror{To: "redis"}, "natively it would be on memory"},
		"one of a program":                    {"records", "dapr", "native", config.Mirror{To: "mysql"}, ""},
		"one of a program, on another server": {"records", "dapr", "native", config.Mirror{To: "redis"}, "natively it would be on mysql"},
		"what Dapr has":                       {"accounts", "redis", "dapr", config.Mirror{To: "dapr"}, ""},
		"itself, natively":                    {"accounts", "redis", "dapr", config.Mirror{To: "redis"}, "not with what Dapr has"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := &config.Config{State: config.State{RedisURL: "redis://h", MySQLDSN: "dsn",
				Stores:  map[string]config.Store{"accounts": {Backend: "redis", KeyPrefix: "shop||"}, "auth2": {Backend: "memory"}},
				Mirrors: map[string]config.Mirror{c.store: c.mirror}}}
			err := checkSeen(cfg, own, state.StoreConfig{Name: c.store, Backend: c.on}, c.to)
			if c.refused == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.refused)
		})
	}
	require.NoError(t, checkSeen(&config.Config{}, nil, state.StoreConfig{Name: "accounts", Backend: "dapr"}, "native"), "no mirror, nothing to say")
}
