package state_test

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/migrate"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
)

// The notes of a migration are found with few calls in a Redis that is full of other keys.
func TestMigrateFindsItsNotes(t *testing.T) {
	server := servers.Redis(t).URL
	d, err := redisstate.New(redisstate.Config{URLs: []string{server}})
	require.NoError(t, err)
	there := memorystate.New()
	t.Cleanup(func() {
		require.NoError(t, d.Close())
		require.NoError(t, there.Close())
	})
	at, err := redis.ParseURL(server)
	require.NoError(t, err)
	client := redis.NewClient(at)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	const others = 30_000
	pairs := make([]any, 0, 2*others)
	for i := range others {
		pairs = append(pairs, fmt.Sprint("other:", i), i)
	}
	require.NoError(t, client.MSet(t.Context(), pairs...).Err())

	m, err := migrate.Open(t.Context(), migrate.Options{
		From: migrate.Place{Driver: d, Store: state.StoreConfig{Name: "auth"}}, To: migrate.Place{Driver: there, Store: state.StoreConfig{Name: "auth"}},
	})
	require.NoError(t, err)
	scans := func() int {
		info, err := client.Info(t.Context(), "commandstats").Result()
		require.NoError(t, err)
		found := regexp.MustCompile(`cmdstat_scan:calls=(\d+)`).FindStringSubmatch(info)
		if found == nil {
			return 0
		}
		n, err := strconv.Atoi(found[1])
		require.NoError(t, err)
		return n
	}
	before := scans()
	_, err = m.Status(t.Context())
	require.NoError(t, err)
	require.LessOrEqual(t, scans()-before, others/5_000)
}
