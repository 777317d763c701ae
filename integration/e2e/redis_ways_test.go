package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
)

// A node keeps its stores in a Redis Cluster of six processes. One of the masters is killed: what was saved is there, and
// every key can be written again when its replica has taken over.
func TestStoresInARedisCluster(t *testing.T) {
	cluster := servers.NewRedisCluster(t, servers.RedisClusterOptions{Replicas: 1})
	n := startNode(t, "--state-redis-cluster-urls", strings.Join(cluster.URLs()[:2], ","))
	keys := saveMany(t, n)
	status, answer := post(t, n.url+"/state/transact", `{"storeName":"auth","operations":[{"operation":"save","key":"{a}1","value":1},{"operation":"save","key":"{a}2","value":2}]}`)
	require.Equal(t, http.StatusOK, status, answer)
	status, answer = post(t, n.url+"/state/transact", `{"storeName":"auth","operations":[{"operation":"save","key":"a","value":1},{"operation":"save","key":"b","value":2}]}`)
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, answer["detail"], "hash tag")
	require.NoError(t, cluster.Nodes[0].Kill())
	goesOn(t, n, keys)
}

// A node keeps its stores, and its bus, in a Redis that Sentinels watch. The master is killed.
func TestStoresInARedisWithSentinels(t *testing.T) {
	s := servers.NewRedisSentinel(t, servers.SentinelOptions{})
	n := startNode(t, append(quick(), "--state-redis-sentinel-urls", strings.Join(s.URLs, ","), "--state-redis-master-name", s.Name, "--messaging-backend", "redis")...)
	keys := saveMany(t, n)
	master, err := s.Master(t.Context())
	require.NoError(t, err)
	require.NoError(t, master.Kill())
	goesOn(t, n, keys)
	require.Eventually(t, func() bool {
		status, _ := post(t, n.url+"/messaging/publish", object{"topic": topic("watched"), "payload": object{}})
		return status == http.StatusOK
	}, patience, 50*time.Millisecond)
}

// saveMany saves keys that lie in all parts of a cluster, and reads them in one request.
func saveMany(t *testing.T, n *node) (keys []string) {
	t.Helper()
	for i := range 60 {
		keys = append(keys, fmt.Sprint("key-", i))
		status, answer := post(t, n.url+"/state/save", object{"storeName": "auth", "key": keys[i], "value": i})
		require.Equal(t, http.StatusOK, status, answer)
	}
	requireAll(t, n, keys)
	return keys
}

func requireAll(t *testing.T, n *node, keys []string) {
	t.Helper()
	status, answer := post(t, n.url+"/state/bulk-get", object{"storeName": "auth", "keys": keys})
	require.Equal(t, http.StatusOK, status, answer)
	for i, item := range answer["items"].([]any) {
		require.Equal(t, true, item.(object)["found"], keys[i])
		require.Equal(t, fmt.Sprint(i), fmt.Sprint(item.(object)["value"]))
	}
}

// goesOn waits until every key can be written again, and reads them.
func goesOn(t *testing.T, n *node, keys []string) {
	t.Helper()
	begun := time.Now()
	for i, key := range keys {
		require.Eventually(t, func() bool {
			status, _ := post(t, n.url+"/state/save", object{"storeName": "auth", "key": key, "value": i})
			return status == http.StatusOK
		}, patience, 50*time.Millisecond, "%s", n.log)
	}
	t.Logf("all keys were written again %s after the master was killed", time.Since(begun).Round(time.Millisecond))
	requireAll(t, n, keys)
	require.Eventually(t, n.ready, patience, 20*time.Millisecond)
}
