package dapr_test

import (
	"context"
	"maps"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/daprstate"
)

// Dapr says of a Redis that refuses to write that ETags do not match. That is no conflict: who saves on condition is not told that somebody was
// first, and who deletes does not try for ever.
func TestStateDriverOnARedisThatRefusesWrites(t *testing.T) {
	server := servers.NewRedis(t, servers.RedisOptions{Volatile: true})
	d := servers.NewDaprd(t, servers.DaprdOptions{Resources: []string{
		component("statestore", "state.redis", "redisHost", server.Addr, "redisPassword", passwordOf(server), "redisDB", database(server)),
	}})
	f, err := state.NewFactory([]state.StoreConfig{{Name: "carts", Backend: "dapr"}}, []state.Driver{newDaprState(t, d.URL)}, state.Options{})
	require.NoError(t, err)
	carts, err := state.Open[jsontext.Value](t.Context(), f, "carts")
	require.NoError(t, err)
	etag, err := carts.Save(t.Context(), "ada", jsontext.Value("1"))
	require.NoError(t, err)

	options, err := redis.ParseURL(server.URL)
	require.NoError(t, err)
	client := redis.NewClient(options)
	defer func() { require.NoError(t, client.Close()) }()
	host, port, err := net.SplitHostPort(freeAddress(t)) // where no master is
	require.NoError(t, err)
	require.NoError(t, client.ReplicaOf(t.Context(), host, port).Err())

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for what, try := range map[string]func() error{
		"a save where there is none": func() error { _, err := carts.TrySave(ctx, "bob", jsontext.Value("1"), ""); return err },
		"a save with an ETag":        func() error { _, err := carts.TrySave(ctx, "ada", jsontext.Value("2"), etag); return err },
		"a delete with an ETag":      func() error { return carts.TryDelete(ctx, "ada", etag) },
		"a delete":                   func() error { _, err := carts.Delete(ctx, "ada"); return err },
	} {
		err := try()
		require.ErrorIs(t, err, state.ErrUnavailable, what)
		require.NotErrorIs(t, err, state.ErrConflict, what)
		require.NoError(t, ctx.Err(), what)
	}
	_, err = carts.TrySave(ctx, "ada", jsontext.Value("2"), "")
	require.ErrorIs(t, err, state.ErrConflict, "which is there")

	require.NoError(t, client.ReplicaOf(t.Context(), "NO", "ONE").Err())
	require.Eventually(t, func() bool { _, err := carts.TrySave(ctx, "ada", jsontext.Value("3"), etag); return err == nil }, wait, wait/1000)
}

// Queries over a sidecar are refused with a sentence, and daprd itself refuses them on every component that runs here. Of those of 1.14, MongoDB and Cosmos DB
// answer them, and Redis with the modules RediSearch and RedisJSON.
func TestQueriesOverASidecarAreRefused(t *testing.T) {
	set := servers.All(t)
	kinds := map[string]string{
		"redis": redisComponent("redis", "state.redis", set.Redis), "mysql": mysqlComponent("mysql", set.MySQL),
		"memory": component("memory", "state.in-memory"),
	}
	d := servers.NewDaprd(t, servers.DaprdOptions{Resources: slices.Collect(maps.Values(kinds))})
	driver, err := daprstate.New(daprstate.Config{Endpoint: d.URL})
	require.NoError(t, err)
	var stores []state.StoreConfig
	for name := range kinds {
		stores = append(stores, state.StoreConfig{Name: name, Backend: "dapr"})
	}
	f, err := state.NewFactory(stores, []state.Driver{driver}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	for name := range kinds {
		_, err := state.OpenQueryable[jsontext.Value](t.Context(), f, name)
		require.ErrorIs(t, err, state.ErrUnsupported, name)
		require.ErrorContains(t, err, `backend "dapr" cannot query; keep the store in one that can, such as mysql or sqlite`)
		s := &side{t: t, url: d.URL}
		refusal := "500 ERR_STATE_STORE_NOT_SUPPORTED"
		if name == "redis" {
			refusal = "500 ERR_STATE_QUERY" // of the server, which does not know FT.SEARCH
		}
		require.Equal(t, refusal, s.code("POST", "/v1.0-alpha1/state/"+name+"/query", `{"filter":{"EQ":{"city":"Ulm"}}}`), name)
	}
}
