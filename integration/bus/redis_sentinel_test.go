package bus_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
)

// The master is killed twice under load; a replica takes over and the killed one comes back as a replica. Publishers that
// wait for all replicas lose nothing. Those that wait for some may lose what was not replicated to the one that Sentinel chooses, which is counted
// and not judged: on one machine it is mostly nothing.
func TestRedisSentinelFailover(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	const replicas = 2
	for name, wait := range map[string]int{"both replicas waited for": replicas, "one waited for": 1, "none waited for": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servers.NewRedisSentinel(t, servers.SentinelOptions{Replicas: replicas, Redis: servers.RedisOptions{Fsync: "everysec"}})
			d := openRedis(t, s.URLs[0], func(c *redisbus.Config) { c.URLs, c.MasterName, c.WaitReplicas = s.URLs, s.Name, wait })
			lost := underLoad(t, d, func(_ bus.Queue, goOn func()) error {
				for range 2 {
					failOver(t, s)
					goOn()
				}
				return nil
			})
			if wait == replicas {
				require.Zero(t, lost, "acknowledged and lost")
			}
		})
	}
}

// failOver kills the master, waits for the next, and brings the killed one back as its replica.
func failOver(t *testing.T, s *servers.RedisSentinel) {
	t.Helper()
	old, err := s.Master(within(t, patience))
	require.NoError(t, err)
	require.NoError(t, old.Kill())
	killed := time.Now()
	var next *servers.RedisServer
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		next, err = s.Master(context.Background())
		assert.True(t, err == nil && next != old, "no other master yet: %v", err)
	}, time.Minute, 50*time.Millisecond) // Sentinels that do not agree in time begin anew after ten seconds
	t.Logf("another master %s after the kill", time.Since(killed).Round(time.Millisecond))
	require.NoError(t, old.Restart(within(t, patience)))
	require.Eventually(t, func() bool { // of whoever is the master now: on a busy machine Sentinels choose once more
		master, err := s.Master(context.Background())
		return err == nil && replicas(master) == len(s.Nodes)-1
	}, time.Minute, 100*time.Millisecond, "the killed node is a replica again")
}

// replicas is how many follow a master.
func replicas(master *servers.RedisServer) int {
	options, err := redis.ParseURL(master.URL)
	if err != nil {
		return 0
	}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	return strings.Count(client.Info(context.Background(), "replication").Val(), "state=online")
}

// Without a replica nothing is confirmed to a publisher that waits for one, and its deadline holds.
func TestRedisWithoutTheReplicaThatIsWaitedFor(t *testing.T) {
	t.Parallel()
	d := openRedis(t, servers.Redis(t).URL, func(c *redisbus.Config) { c.WaitReplicas = 1 })
	c := subscribe(t, d, durable("orders.placed"))
	for i := range 3 {
		start := time.Now()
		err := d.Publish(within(t, time.Second), &bus.Message{RoutingKey: "orders.placed", ID: fmt.Sprint(i)})
		require.ErrorIs(t, err, bus.ErrNotConfirmed)
		require.Less(t, time.Since(start), patience)
		require.NoError(t, next(t, c).Ack(), "it is there all the same, once")
	}
	nothing(t, c)
}
