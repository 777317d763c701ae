package bus_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/bustest"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
)

// openRedis makes a driver that is closed when the test ends.
func openRedis(t testing.TB, url string, change ...func(*redisbus.Config)) *redisbus.Driver {
	t.Helper()
	cfg := redisbus.Config{URLs: []string{url}, Upkeep: time.Second}
	for _, c := range change {
		c(&cfg)
	}
	d, err := redisbus.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_ = d.Close(ctx) // with deliveries that the test left unsettled it waits for them, then says so
	})
	return d
}

// freshRedis is a database for each case.
func freshRedis(t testing.TB) bustest.Setup {
	url := servers.Redis(t).URL
	return bustest.Setup{Node: func(t testing.TB) bus.Driver { return openRedis(t, url) }}
}

func TestRedisConformance(t *testing.T) {
	t.Parallel()
	bustest.Run(t, freshRedis, bustest.Features{Expiration: true, DeadLetterStore: "bannou-dlx-store"})
}

func TestRedisWatermillSuite(t *testing.T) {
	t.Parallel()
	bustest.RunWatermill(t, freshRedis)
}
