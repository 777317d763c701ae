package state_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
)

func openEngine(t *testing.T, cfg redisstate.Config) state.Engine {
	t.Helper()
	engine, err := newRedis(t, cfg).Open(t.Context(), state.StoreConfig{Name: "s", KeyPrefix: "s"})
	require.NoError(t, err)
	return engine
}

func saving(key string) state.Change {
	return state.Change{Key: key, Value: []byte(strconv.Quote(key)), Expiry: state.Keep}
}

// scripts is how many times the server has run a script by its hash.
func scripts(t *testing.T, client *redis.Client) int {
	t.Helper()
	info, err := client.Info(t.Context(), "commandstats").Result()
	require.NoError(t, err)
	found := regexp.MustCompile(`cmdstat_evalsha:calls=(\d+)`).FindStringSubmatch(info)
	require.NotNil(t, found)
	n, err := strconv.Atoi(found[1])
	require.NoError(t, err)
	return n
}

// Changes that go together are made by few runs of the script, and each is judged by itself.
func TestRedisRuns(t *testing.T) {
	ctx := t.Context()
	server := servers.NewRedis(t, servers.RedisOptions{Volatile: true})
	client := redisClient(t, server.URL)
	engine := openEngine(t, redisstate.Config{URLs: []string{server.URL}})
	made, err := engine.Apply(ctx, []state.Change{saving("there")})
	require.NoError(t, err)
	require.NoError(t, client.Set(ctx, "s:damaged", "no hash", 0).Err())
	conditional := func(key string, when state.Condition, etag string) state.Change {
		c := saving(key)
		c.When, c.ETag = when, etag
		return c
	}
	expiring := saving("expiring")
	expiring.Expiry = state.After(time.Hour)
	changes := []state.Change{
		conditional("there", state.IfETag, made[0].ETag), conditional("absent", state.IfETag, made[0].ETag), saving("damaged"),
		{Key: "not there", Delete: true}, conditional("new", state.IfAbsent, ""), expiring,
		{Key: "absent too", Delete: true, When: state.IfETag, ETag: "1-x"},
	}
	big := saving("big")
	big.Value = []byte(strconv.Quote(strings.Repeat("x", 300<<10)))
	changes = append(changes, big)
	for i := range 92 {
		changes = append(changes, saving(fmt.Sprintf("k%d", i)))
	}
	before := scripts(t, client)
	outcomes, err := engine.Apply(ctx, changes)
	require.NoError(t, err)
	runs := scripts(t, client) - before
	require.Less(t, runs, 10, "100 changes")

	require.True(t, outcomes[0].Done)
	require.EqualValues(t, 2, outcomes[0].Version)
	require.Equal(t, state.Outcome{Conflict: true, Absent: true}, outcomes[1])
	require.ErrorIs(t, outcomes[2].Err, state.ErrCorrupt)
	require.ErrorContains(t, outcomes[2].Err, `"damaged"`)
	require.Equal(t, state.Outcome{}, outcomes[3])
	require.Equal(t, state.Outcome{Conflict: true, Absent: true}, outcomes[6])
	for i, o := range outcomes {
		switch i {
		case 0, 1, 2, 3, 6:
		default:
			require.True(t, o.Done, changes[i].Key)
			require.EqualValues(t, 1, o.Version)
			records, err := engine.Get(ctx, []string{changes[i].Key})
			require.NoError(t, err)
			require.Equal(t, string(changes[i].Value), string(records[0].Value))
			require.Equal(t, o.ETag, records[0].ETag)
			require.Equal(t, i != 5, records[0].ExpiresAt.IsZero(), changes[i].Key)
		}
	}
	outcomes, err = engine.Apply(ctx, []state.Change{{Key: "k0", Delete: true}, conditional("k1", state.IfAbsent, ""), {Key: "k2", Delete: true, When: state.IfETag, ETag: outcomes[10].ETag}})
	require.NoError(t, err)
	require.Equal(t, []state.Outcome{{Done: true}, {Conflict: true}, {Done: true}}, outcomes)
}

// What the server refuses of one change is not the others' failure.
func TestRedisRunsRefused(t *testing.T) {
	ctx := t.Context()
	t.Run("memory is full", func(t *testing.T) {
		server := servers.NewRedis(t, servers.RedisOptions{Volatile: true})
		client := redisClient(t, server.URL)
		engine := openEngine(t, redisstate.Config{URLs: []string{server.URL}})
		_, err := engine.Apply(ctx, []state.Change{saving("old"), saving("older")})
		require.NoError(t, err)
		require.NoError(t, client.ConfigSet(ctx, "maxmemory", "1").Err())
		_, err = engine.Apply(ctx, []state.Change{saving("a"), saving("b")})
		require.ErrorIs(t, err, state.ErrUnavailable)
		changes := []state.Change{saving("a"), {Key: "old", Delete: true}, saving("b"), {Key: "older", Delete: true}}
		outcomes, err := engine.Apply(ctx, changes)
		require.NoError(t, err)
		require.Equal(t, state.Outcome{Done: true}, outcomes[1], "room is made by it")
		require.Equal(t, state.Outcome{Done: true}, outcomes[3])
		require.ErrorIs(t, outcomes[0].Err, state.ErrUnavailable)
		require.ErrorIs(t, outcomes[2].Err, state.ErrUnavailable)
		found, err := engine.Exists(ctx, []string{"a", "old", "b", "older"})
		require.NoError(t, err)
		require.Equal(t, []bool{false, false, false, false}, found)
	})
	t.Run("a key that is not the user's", func(t *testing.T) {
		server := servers.NewRedis(t, servers.RedisOptions{Volatile: true})
		client := redisClient(t, server.URL)
		require.NoError(t, client.Do(ctx, "ACL", "SETUSER", "guest", "on", ">secret", "+@all", "~s:own*").Err())
		engine := openEngine(t, redisstate.Config{URLs: []string{"redis://guest:secret@" + server.Addr}})
		outcomes, err := engine.Apply(ctx, []state.Change{saving("own 1"), saving("another's"), saving("own 2")})
		require.NoError(t, err)
		require.True(t, outcomes[0].Done)
		require.ErrorContains(t, outcomes[1].Err, "NOPERM")
		require.True(t, outcomes[2].Done)
	})
	t.Run("a command that is not the user's", func(t *testing.T) {
		server := servers.NewRedis(t, servers.RedisOptions{Volatile: true})
		client := redisClient(t, server.URL)
		require.NoError(t, client.Do(ctx, "ACL", "SETUSER", "guest", "on", ">secret", "+@all", "-del", "~*").Err())
		engine := openEngine(t, redisstate.Config{URLs: []string{"redis://guest:secret@" + server.Addr}})
		outcomes, err := engine.Apply(ctx, []state.Change{saving("a"), {Key: "x", Delete: true}, saving("b")})
		require.NoError(t, err)
		require.True(t, outcomes[0].Done)
		require.ErrorIs(t, outcomes[1].Err, state.ErrUnavailable)
		require.ErrorContains(t, outcomes[1].Err, "run this command")
		require.True(t, outcomes[2].Done)
		require.EqualValues(t, 1, outcomes[2].Version, "made once")
	})
}

// One address may stand for several servers, which take no script over keys of several. It is noticed, and changes go one by one.
func TestRedisRunsApart(t *testing.T) {
	ctx := t.Context()
	server := servers.NewRedis(t, servers.RedisOptions{Volatile: true, Args: []string{
		"--databases", "1", "--cluster-enabled", "yes", "--cluster-port", freePort(t),
	}})
	client := redisClient(t, server.URL)
	require.NoError(t, client.ClusterAddSlotsRange(ctx, 0, 16383).Err())
	require.Eventually(t, func() bool { return client.Set(ctx, "probe", "1", 0).Err() == nil }, patience, 10*time.Millisecond)
	engine := openEngine(t, redisstate.Config{URLs: []string{server.URL}})
	changes := []state.Change{saving("a"), saving("b"), saving("c")}
	for version := int64(1); version <= 3; version++ {
		outcomes, err := engine.Apply(ctx, changes)
		require.NoError(t, err)
		for i, o := range outcomes {
			require.True(t, o.Done, changes[i].Key)
			require.Equal(t, version, o.Version)
		}
	}
}
