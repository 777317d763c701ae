package mesh

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/mesh/meshtest"
)

func TestTableConforms(t *testing.T) {
	meshtest.RunTable(t, func(t *testing.T) mesh.Table { return openTable(t, servers.Redis(t).URL) })
}

func TestFeedConforms(t *testing.T) {
	eachBroker(t, func(t *testing.T, p place) {
		meshtest.RunFeed(t, func(t *testing.T) (here, there mesh.Feed) { return p.connect(t).feed, p.connect(t).feed })
	})
}

func endpoint(app, instance string) mesh.Endpoint {
	return mesh.Endpoint{AppID: app, InstanceID: instance, Host: "127.0.0.1", Port: 3500}
}

// Replicas that start at the same moment are all there, each with what it said of itself, and stay through their
// heartbeats; and those that leave at the same moment take nobody with them.
func TestReplicasAtOnce(t *testing.T) {
	url := servers.Redis(t).URL
	const replicas, processes = 60, 6
	var registries []*mesh.Registry
	for range processes {
		r, err := mesh.NewRegistry(openTable(t, url), new(meshtest.Feed), mesh.RegistryConfig{})
		require.NoError(t, err)
		registries = append(registries, r)
	}
	atOnce := func(do func(r *mesh.Registry, i int)) {
		start := make(chan struct{})
		var all sync.WaitGroup
		for i := range replicas {
			all.Go(func() {
				<-start
				do(registries[i%processes], i)
			})
		}
		close(start)
		all.Wait()
	}
	one := func(i int) mesh.Endpoint {
		e := endpoint(fmt.Sprintf("app-%d", i%2), fmt.Sprintf("replica-%02d", i))
		e.Port = 4000 + i
		return e
	}
	check := func(want int, of func(e mesh.Endpoint)) {
		list, err := registries[0].List(t.Context(), false)
		require.NoError(t, err)
		require.Len(t, list, want)
		for _, e := range list {
			of(e)
		}
	}
	number := func(e mesh.Endpoint) (i int) {
		_, err := fmt.Sscanf(e.InstanceID, "replica-%d", &i)
		require.NoError(t, err)
		return i
	}
	atOnce(func(r *mesh.Registry, i int) { assert.NoError(t, r.Register(t.Context(), one(i))) })
	check(replicas, func(e mesh.Endpoint) { require.Equal(t, 4000+number(e), e.Port) })
	atOnce(func(r *mesh.Registry, i int) {
		e := one(i)
		e.LoadPercent = float64(i)
		assert.NoError(t, r.Heartbeat(t.Context(), e))
	})
	check(replicas, func(e mesh.Endpoint) { require.InDelta(t, number(e), e.LoadPercent, 0) })
	atOnce(func(r *mesh.Registry, i int) {
		if i%3 == 0 {
			left, err := r.Deregister(t.Context(), one(i).AppID, one(i).InstanceID)
			assert.True(t, left && err == nil, "%v", err)
		}
	})
	check(replicas-replicas/3, func(e mesh.Endpoint) { require.NotZero(t, number(e)%3) })
}

// Redis itself forgets an instance 90 s after it was last seen, also one of whom nobody hears again.
func TestEntriesExpireInRedis(t *testing.T) {
	url := servers.Redis(t).URL
	r, err := mesh.NewRegistry(openTable(t, url), new(meshtest.Feed), mesh.RegistryConfig{})
	require.NoError(t, err)
	options, err := redis.ParseURL(url)
	require.NoError(t, err)
	client := redis.NewClient(options)
	defer client.Close()
	left := func(key string) time.Duration {
		ttl, err := client.PTTL(t.Context(), key).Result()
		require.NoError(t, err)
		return ttl
	}
	const key = "service:registry:app:one"
	require.NoError(t, r.Register(t.Context(), endpoint("app", "one")))
	require.InDelta(t, 90, left(key).Seconds(), 5)
	require.InDelta(t, 90, left("service:heartbeat:app").Seconds(), 5)
	_, err = r.SetMappings(t.Context(), map[string]string{"game": "app"}, "")
	require.NoError(t, err)
	require.InDelta(t, 300, left("service:routing:game").Seconds(), 5)
	require.EqualValues(t, -1, left("config:current"), "what was decided stays")

	require.NoError(t, client.PExpire(t.Context(), key, 20*time.Second).Err())
	e := endpoint("app", "one")
	e.LastSeen = time.Now().Add(-30 * time.Second)
	require.NoError(t, r.Heartbeat(t.Context(), e))
	require.LessOrEqual(t, left(key), 20*time.Second, "an older sign of life prolongs nothing")
	require.NoError(t, r.Heartbeat(t.Context(), endpoint("app", "one")))
	require.InDelta(t, 90, left(key).Seconds(), 5)
}

// Of those who change the same version of the configuration at once, one succeeds, and the others are told.
func TestConfigurationIsSetUnderCompareAndSet(t *testing.T) {
	url := servers.Redis(t).URL
	var registries []*mesh.Registry
	for range 4 {
		r, err := mesh.NewRegistry(openTable(t, url), new(meshtest.Feed), mesh.RegistryConfig{})
		require.NoError(t, err)
		registries = append(registries, r)
	}
	atOnce := func(change func(r *mesh.Registry, i int) error) (succeeded int64) {
		var won atomic.Int64
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				if err := change(registries[i%len(registries)], i); err == nil {
					won.Add(1)
				} else {
					assert.ErrorIs(t, err, mesh.ErrConflict)
				}
			})
		}
		all.Wait()
		return won.Load()
	}
	for version := range int64(5) {
		require.EqualValues(t, 1, atOnce(func(r *mesh.Registry, i int) error {
			_, err := r.SetConfig(t.Context(), version, mesh.Config{Mappings: map[string]string{"game": fmt.Sprintf("app-%d-%d", version, i)}})
			return err
		}))
	}
	require.EqualValues(t, 1, atOnce(func(r *mesh.Registry, _ int) error {
		_, err := r.RollbackConfig(t.Context(), 2, 5, "")
		return err
	}))
	require.EqualValues(t, 16, atOnce(func(r *mesh.Registry, i int) error {
		_, err := r.SetMappings(t.Context(), map[string]string{"game": fmt.Sprintf("app-%d", i)}, "")
		return err
	}), "without a version to expect, each is a version of its own")
	history, err := registries[0].ConfigHistory(t.Context(), 100)
	require.NoError(t, err)
	require.Len(t, history, 5+1+16, "and all of them are kept")
	require.Equal(t, history[16+1+3].Mappings, history[16].Mappings, "the rollback brought version 2 back")
}
