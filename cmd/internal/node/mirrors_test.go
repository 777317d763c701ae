package node

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/mirror"
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
		"Dapr's rows in MySQL":                {"players", "dapr", "native", config.Mirror{To: "mysql"}, ""},
		"those of another app":                {"players", "dapr", "native", config.Mirror{To: "mysql", KeyPrefix: "shp||"}, `under the key prefix "shp||"`},
		"itself, natively":                    {"accounts", "redis", "dapr", config.Mirror{To: "redis"}, "not with what Dapr has"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := &config.Config{State: config.State{RedisURL: "redis://h", MySQLDSN: "dsn",
				Stores:  map[string]config.Store{"accounts": {Backend: "redis", KeyPrefix: "shop||"}, "auth2": {Backend: "memory"}, "players": {Backend: "mysql", KeyPrefix: "shop||"}},
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

// A mirror looks at the table where a store in that place would be: Dapr's for Dapr's rows, and the native one is not made in Dapr's form.
func TestTheTableOfAMirror(t *testing.T) {
	for _, c := range []struct {
		mirror config.Mirror
		set    config.Store
		table  string
	}{
		{config.Mirror{To: "mysql", KeyPrefix: "shop||"}, config.Store{}, state.DaprTable},
		{config.Mirror{To: "mysql"}, config.Store{Backend: "mysql", KeyPrefix: "shop||"}, state.DaprTable},
		{config.Mirror{To: "mysql"}, config.Store{Backend: "mysql", KeyPrefix: "shop||", TableName: "shop.rows"}, "shop.rows"},
		{config.Mirror{To: "mysql", TableName: "shop.others"}, config.Store{Backend: "mysql", KeyPrefix: "shop||", TableName: "shop.rows"}, "shop.others"},
		{config.Mirror{To: "mysql"}, config.Store{}, "state_entries"},
		{config.Mirror{To: "sqlite", KeyPrefix: "shop||"}, config.Store{}, "state_entries"},
	} {
		cfg := &config.Config{State: config.State{Stores: map[string]config.Store{"accounts": c.set}, Mirrors: map[string]config.Mirror{"accounts": c.mirror}}}
		to, ok := counterpart(cfg, state.StoreConfig{Name: "accounts", Backend: "dapr"})
		require.True(t, ok)
		require.Equal(t, c.table, to.TableName, "%+v of %+v", c.mirror, c.set)
	}
}

// named is a driver of memory under another name, which notes what it opens.
type named struct {
	state.Driver
	backend string
	opened  chan state.StoreConfig
}

func (n named) Backend() string { return n.backend }

func (n named) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	n.opened <- cfg
	return n.Driver.Open(ctx, cfg)
}

// The place that is compared is the one that is told of and judged: what a factory fills in of the store stands before nothing that is set.
func TestTheMirrorOpensThePlaceThatIsSet(t *testing.T) {
	cfg := &config.Config{State: config.State{
		Stores:  map[string]config.Store{"accounts": {Backend: "mysql", KeyPrefix: "shop||"}},
		Mirrors: map[string]config.Mirror{"accounts": {To: "mysql"}},
	}}
	stores := []state.StoreConfig{{Name: "accounts", Backend: "dapr"}}
	here := named{memorystate.New(), "dapr", make(chan state.StoreConfig, 10)}
	there := named{memorystate.New(), "mysql", make(chan state.StoreConfig, 10)}
	drivers, err := withMirrors(cfg, stores, []state.Driver{here}, []state.Driver{there}, mirror.NewLedger(), nil, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	factory, err := state.NewFactory(stores, drivers, state.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, factory.Close()) }()
	store, err := state.Open[int](t.Context(), factory, "accounts")
	require.NoError(t, err)
	_, err = store.Save(t.Context(), "key", 1)
	require.NoError(t, err)
	select {
	case opened := <-there.opened:
		require.Equal(t, "shop||", opened.KeyPrefix)
		require.Equal(t, state.DaprTable, opened.TableName)
	case <-time.After(time.Minute):
		t.Fatal("the other place was not opened")
	}
}
