package state_test

import (
	"context"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
)

// What a store costs beside plain go-redis on the same server: GET and SET of the bytes, without ETag, version, times
// and conditions. cpu-us/op is the processor time of this process and of the server together; unlike the rate it hardly
// depends on what else the machine does. The ratio of store to plain is what to watch.
func BenchmarkRedis(b *testing.B) {
	server := servers.NewRedis(b, servers.RedisOptions{Volatile: true})
	client := redisClient(b, server.URL)
	store := openRaw(b, newRedis(b, redisstate.Config{URLs: []string{server.URL}}), state.StoreConfig{Name: "s"})
	value := `{"text":"` + strings.Repeat("x", 1000) + `"}`
	_, err := store.Save(b.Context(), "k", jsontext.Value(value))
	require.NoError(b, err)
	require.NoError(b, client.Set(b.Context(), "plain", value, 0).Err())
	bulkKeys := make([]string, 100)
	for i := range bulkKeys {
		bulkKeys[i] = "k"
	}
	for _, c := range []struct {
		name string
		run  func(ctx context.Context) error
	}{
		{"get/plain", func(ctx context.Context) error { return client.Get(ctx, "plain").Err() }},
		{"get/store", func(ctx context.Context) error { _, err := store.Get(ctx, "k"); return err }},
		{"save/plain", func(ctx context.Context) error { return client.Set(ctx, "plain", value, 0).Err() }},
		{"save/store", func(ctx context.Context) error {
			_, err := store.Save(ctx, "k", jsontext.Value(value))
			return err
		}},
		{"get100/plain", func(ctx context.Context) error {
			_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
				for range bulkKeys {
					pipe.Get(ctx, "plain")
				}
				return nil
			})
			return err
		}},
		{"get100/store", func(ctx context.Context) error { _, err := store.GetBulk(ctx, bulkKeys); return err }},
	} {
		b.Run(c.name+"/1", func(b *testing.B) {
			b.ReportAllocs()
			defer reportCPU(b, client)()
			for b.Loop() {
				if err := c.run(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(c.name+"/64", func(b *testing.B) {
			b.SetParallelism(32)
			defer reportCPU(b, client)()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := c.run(b.Context()); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// reportCPU measures from now until what it returns is called.
func reportCPU(b *testing.B, client *redis.Client) func() {
	start := cpuTime(b, client)
	return func() {
		b.StopTimer()
		b.ReportMetric(float64((cpuTime(b, client)-start).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
	}
}

// cpuTime is the processor time that this process and the server have used.
func cpuTime(b *testing.B, client *redis.Client) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	total := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	info := client.InfoMap(b.Context(), "cpu").Item
	for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
		seconds, err := strconv.ParseFloat(info("CPU", name), 64)
		require.NoError(b, err)
		total += time.Duration(seconds * float64(time.Second))
	}
	return total
}
