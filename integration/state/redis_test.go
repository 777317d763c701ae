package state_test

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

func TestRedis(t *testing.T) {
	t.Parallel()
	urls := map[state.Driver]string{}
	open := func(t *testing.T, url string) state.Driver {
		d := newRedis(t, redisstate.Config{URLs: []string{url}})
		urls[d] = url
		return d
	}
	statetest.Run(t, func(t *testing.T) state.Driver { return open(t, servers.Redis(t).URL) }, statetest.Features{
		Reopen: func(t *testing.T, d state.Driver) state.Driver {
			require.NoError(t, d.Close())
			return open(t, urls[d])
		},
		Corrupt: func(t *testing.T, d state.Driver, store, key, text string) {
			client := redisClient(t, urls[d])
			require.NoError(t, client.HSet(t.Context(), store+":"+key, "data", text).Err())
		},
	})
}

func newRedis(t testing.TB, cfg redisstate.Config) *redisstate.Driver {
	t.Helper()
	d, err := redisstate.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func redisClient(t testing.TB, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	require.NoError(t, err)
	client := redis.NewClient(options)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

// openRaw opens a store that passes JSON through.
func openRaw(t testing.TB, d state.Driver, cfg state.StoreConfig) *state.Store[jsontext.Value] {
	t.Helper()
	cfg.Backend = d.Backend()
	f, err := state.NewFactory([]state.StoreConfig{cfg}, []state.Driver{d}, state.Options{})
	require.NoError(t, err)
	store, err := state.Open[jsontext.Value](t.Context(), f, cfg.Name)
	require.NoError(t, err)
	return store
}

// Other programs read these hashes: the names are a contract.
func TestRedisLayout(t *testing.T) {
	ctx := t.Context()
	server := servers.Redis(t)
	client := redisClient(t, server.URL)
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}}), state.StoreConfig{Name: "auth", KeyPrefix: "service:registry"})
	saved, err := store.SaveWith(ctx, "a:b", jsontext.Value(`{"n":1.10}`), state.SaveOptions{Expiry: state.After(90 * time.Second)})
	require.NoError(t, err)

	keys, err := client.Keys(ctx, "*").Result()
	require.NoError(t, err)
	require.Equal(t, []string{"service:registry:a:b"}, keys)
	fields, err := client.HGetAll(ctx, keys[0]).Result()
	require.NoError(t, err)
	require.Len(t, fields, 6)
	require.Equal(t, `{"n":1.10}`, fields["data"])
	require.Equal(t, "1", fields["version"])
	require.Equal(t, saved.ETag, "1-"+fields["nonce"])
	for _, name := range []string{"createdAt", "updatedAt"} {
		at, err := time.Parse(time.RFC3339Nano, fields[name])
		require.NoError(t, err)
		require.WithinDuration(t, time.Now(), at, 5*time.Second)
		require.Equal(t, time.UTC, at.Location())
	}
	ttl, err := client.PTTL(ctx, keys[0]).Result()
	require.NoError(t, err)
	require.InDelta(t, 90*time.Second, ttl, float64(5*time.Second))
}

// daprSet is how Dapr's Redis store writes a key, in one script (components-contrib, state/redis).
const daprSet = `
local etag = redis.pcall("HGET", KEYS[1], "version");
if type(etag) == "table" then redis.call("DEL", KEYS[1]); end;
if not etag or type(etag) == "table" or etag == "" or etag == ARGV[1] or ARGV[1] == "0" then
  redis.call("HSET", KEYS[1], "data", ARGV[2]);
  return redis.call("HINCRBY", KEYS[1], "version", 1)
else return error("failed to set key " .. KEYS[1]) end`

// A store may be switched from Dapr in place, and back, with both beside each other for a while.
func TestRedisBesideDapr(t *testing.T) {
	ctx := t.Context()
	server := servers.Redis(t)
	client := redisClient(t, server.URL)
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}}), state.StoreConfig{Name: "s"})
	dapr := func(etag, value string) error { return client.Eval(ctx, daprSet, []string{"s:k"}, etag, value).Err() }

	require.NoError(t, dapr("0", `"theirs"`))
	theirs, err := store.GetWithETag(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, `"theirs"`, string(theirs.Value))
	require.Equal(t, "1", theirs.ETag)
	require.True(t, theirs.CreatedAt.IsZero(), "nobody wrote down when")

	_, err = store.TrySave(ctx, "k", jsontext.Value("0"), "2")
	require.ErrorIs(t, err, state.ErrConflict)
	ours, err := store.TrySave(ctx, "k", jsontext.Value(`"ours"`), theirs.ETag)
	require.NoError(t, err)
	require.NotEqual(t, "2", ours, "from now on the key has a nonce")

	require.Error(t, dapr("1", `"late"`), "Dapr sees that the key was changed")
	require.NoError(t, dapr("2", `"theirs again"`))
	_, err = store.TrySave(ctx, "k", jsontext.Value("0"), ours)
	require.ErrorIs(t, err, state.ErrConflict, "and we see that Dapr changed it")
	entry, err := store.GetWithETag(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, `"theirs again"`, string(entry.Value))
	require.EqualValues(t, 3, entry.Version)
}

// What is not a record is corrupt, whichever way, and is neither overwritten nor taken for absent.
func TestRedisForeignKeys(t *testing.T) {
	ctx := t.Context()
	server := servers.Redis(t)
	client := redisClient(t, server.URL)
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}}), state.StoreConfig{Name: "s"})
	for name, damage := range map[string]func(key string) error{
		"a string":        func(key string) error { return client.Set(ctx, key, "1", 0).Err() },
		"a list":          func(key string) error { return client.LPush(ctx, key, "1").Err() },
		"no fields of it": func(key string) error { return client.HSet(ctx, key, "other", "1").Err() },
		"no version":      func(key string) error { return client.HSet(ctx, key, "data", "1").Err() },
		"a wrong version": func(key string) error { return client.HSet(ctx, key, "data", "1", "version", "x").Err() },
	} {
		require.NoError(t, damage("s:{t}k"), name)
		_, err := store.Get(ctx, "{t}k")
		require.ErrorIs(t, err, state.ErrCorrupt, name)
		require.ErrorContains(t, err, `"{t}k"`, name)
		_, err = store.GetBulk(ctx, []string{"other", "{t}k"})
		require.ErrorIs(t, err, state.ErrCorrupt, name)
		_, err = store.Save(ctx, "{t}k", jsontext.Value("2"))
		require.ErrorIs(t, err, state.ErrCorrupt, name)
		_, err = store.TrySave(ctx, "{t}k", jsontext.Value("2"), "")
		require.ErrorIs(t, err, state.ErrCorrupt, name)
		_, err = store.Transact(ctx, []state.Op[jsontext.Value]{{Key: "{t}other", Value: jsontext.Value("2")}, {Key: "{t}k", Value: jsontext.Value("2")}})
		require.ErrorIs(t, err, state.ErrCorrupt, name)
		exists, err := store.Exists(ctx, "{t}other")
		require.NoError(t, err)
		require.False(t, exists, "a transaction that meets %s changes nothing", name)
		deleted, err := store.Delete(ctx, "{t}k")
		require.NoError(t, err, "it can be removed")
		require.True(t, deleted)
		_, err = store.Get(ctx, "{t}k")
		require.ErrorIs(t, err, state.ErrNotFound)
	}
	// A hash without data was half written by something else.
	require.NoError(t, client.HSet(ctx, "s:k", "version", "1").Err())
	_, err := store.Get(ctx, "k")
	require.ErrorIs(t, err, state.ErrCorrupt)
}

// A restart, a failover or SCRIPT FLUSH empties the script cache. Callers do not notice, also within a bulk call.
func TestRedisScriptLost(t *testing.T) {
	ctx := t.Context()
	server := servers.NewRedis(t, servers.RedisOptions{})
	client := redisClient(t, server.URL)
	store := openRaw(t, newRedis(t, redisstate.Config{URLs: []string{server.URL}}), state.StoreConfig{Name: "s"})
	for range 3 {
		require.NoError(t, client.ScriptFlush(ctx).Err())
		_, err := store.Save(ctx, "k", jsontext.Value("1"))
		require.NoError(t, err)
		require.NoError(t, client.ScriptFlush(ctx).Err())
		results, err := store.SaveBulk(ctx, []state.Item[jsontext.Value]{{Key: "a", Value: jsontext.Value("1")}, {Key: "b", Value: jsontext.Value("1")}})
		require.NoError(t, err)
		require.NoError(t, results[0].Err)
		require.NoError(t, results[1].Err)
	}
	entry, err := store.GetWithETag(ctx, "a")
	require.NoError(t, err)
	require.EqualValues(t, 3, entry.Version, "no change was made twice")
}

// The prefix is text: characters that mean something in a pattern count no other store's keys.
func TestRedisPrefixIsText(t *testing.T) {
	ctx := t.Context()
	server := servers.Redis(t)
	d := newRedis(t, redisstate.Config{URLs: []string{server.URL}})
	for _, prefix := range []string{"abc", "a*c", "a?c", "a[b]c", `a\c`, "a", "{tag}"} {
		store := openRaw(t, d, state.StoreConfig{Name: "s", KeyPrefix: prefix})
		_, err := store.Save(ctx, "k", jsontext.Value("1"))
		require.NoError(t, err)
		n, err := store.Len(ctx)
		require.NoError(t, err)
		require.EqualValues(t, 1, n, "prefix %q", prefix)
	}
	tagged := openRaw(t, d, state.StoreConfig{Name: "s", KeyPrefix: "{tag}"})
	_, err := tagged.Transact(ctx, []state.Op[jsontext.Value]{{Key: "x", Delete: true}, {Key: "y", Delete: true}})
	require.NoError(t, err, "a tag in the prefix is shared by all keys of the store")
}

// No goroutine and no connection outlives Close.
func TestRedisLeavesNothing(t *testing.T) {
	server := servers.Redis(t)
	ignore := goleak.IgnoreCurrent()
	d, err := redisstate.New(redisstate.Config{URLs: []string{server.URL}})
	require.NoError(t, err)
	store := openRaw(t, d, state.StoreConfig{Name: "s"})
	_, err = store.Save(t.Context(), "k", jsontext.Value("1"))
	require.NoError(t, err)
	require.NoError(t, d.Close())
	goleak.VerifyNone(t, ignore)
}

// The same promises over three masters: every script touches one slot, and bulk calls are divided among the nodes.
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	urls := servers.NewRedisCluster(t, servers.RedisClusterOptions{Redis: servers.RedisOptions{Volatile: true}}).URLs()
	statetest.Run(t, func(t *testing.T) state.Driver { return newRedis(t, redisstate.Config{URLs: urls}) }, statetest.Features{})
}
