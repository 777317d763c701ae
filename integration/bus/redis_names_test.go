package bus_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
)

// No name that a publisher or a subscriber may choose reaches a key that is not a topic's: neither the bus's own, nor a
// store's, nor the mesh's, all of which lie in one Redis by default.
func TestRedisNamesHarmNoKey(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	d := openRedis(t, url)
	client := plainRedis(t, url)
	require.NoError(t, client.HSet(t.Context(), "auth-hash", "data", "precious").Err())
	require.NoError(t, client.HSet(t.Context(), "auth:hash", "data", "precious").Err())
	for _, name := range []string{"auth:victim", "auth:hash", "auth-hash", "config:current", "bannou:{other}:own", "bannou-dlx-store", "a{b}"} {
		require.ErrorIs(t, d.Publish(within(t, patience), &bus.Message{RoutingKey: name, ID: "x"}), bus.ErrInvalid, name)
		for _, q := range []bus.Queue{durable(name), dynamic(name, "1")} {
			_, err := d.Subscribe(within(t, patience), q)
			require.ErrorIs(t, err, bus.ErrInvalid, name)
		}
	}
	topics, err := client.ZRange(t.Context(), "bannou:{registry}:topics", 0, -1).Result()
	require.NoError(t, err)
	require.Empty(t, topics, "nothing was registered, so nothing is trimmed")
	keys, err := client.Keys(t.Context(), "*").Result()
	require.NoError(t, err)
	for _, key := range keys {
		require.True(t, key == "auth-hash" || key == "auth:hash" || strings.HasPrefix(key, "bannou:{registry}:"), key)
	}
}

// What an earlier version registered that is no topic's stream keeps no other topic from being trimmed, and is left alone:
// not trimmed, and not read for a pattern either. The log says so once.
func TestRedisBadTopicsOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	client := plainRedis(t, url)
	require.NoError(t, client.HSet(t.Context(), "a-hash", "data", "precious").Err())
	old := fmt.Sprintf("%d-0", time.Now().Add(-time.Hour).UnixMilli()) // by far older than the grace
	for _, stream := range []string{"auth:victim", "bannou-dlx-store"} {
		require.NoError(t, client.XAdd(t.Context(), &redis.XAddArgs{Stream: stream, ID: old, Values: map[string]any{"payload": "kept"}}).Err())
	}
	for _, name := range []string{"a-hash", "auth:victim", "bannou-dlx-store"} { // the first three to be trimmed
		require.NoError(t, client.ZAdd(t.Context(), "bannou:{registry}:topics", redis.Z{Score: 1, Member: name}).Err())
	}
	log := new(logged)
	d := openRedis(t, url, func(c *redisbus.Config) {
		c.Grace, c.Upkeep = time.Millisecond, 50*time.Millisecond
		c.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	publish(t, d, "zoo.opened", "1")
	require.Eventually(t, func() bool {
		return client.XLen(t.Context(), "zoo.opened").Val() == 0 && client.ZCard(t.Context(), "bannou:{registry}:topics").Val() == 1
	}, patience, 10*time.Millisecond, "what comes after them is trimmed, and they are forgotten")
	for _, stream := range []string{"auth:victim", "bannou-dlx-store"} {
		require.EqualValues(t, 1, client.XLen(t.Context(), stream).Val(), stream)
	}
	require.Equal(t, "precious", client.HGet(t.Context(), "a-hash", "data").Val())
	for _, q := range []bus.Queue{{Name: "all", Durable: true, Prefetch: 1, Bindings: []bus.Binding{{Pattern: "#"}}}, dynamic("#", "1")} {
		c := subscribe(t, d, q)
		publish(t, d, "zoo.opened", "2")
		require.Equal(t, "2", string(next(t, c).Message().Body))
	}
	for _, name := range []string{"a-hash", "auth:victim", "bannou-dlx-store"} {
		require.Equal(t, 1, strings.Count(log.String(), "stream="+name), "%s is told of once", name)
	}
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
