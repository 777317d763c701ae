package bus_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
)

// trimsEarly has streams trimmed as soon as all groups have handled them, and returns how to read what was dropped for a
// queue.
func trimsEarly(t testing.TB) (change func(*redisbus.Config), dropped func(queue string) int64) {
	t.Helper()
	reader := sdkmetric.NewManualReader()
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	change = func(c *redisbus.Config) {
		c.Grace, c.Upkeep, c.MeterProvider = 300*time.Millisecond, 50*time.Millisecond, meters
	}
	return change, func(queue string) (sum int64) {
		var all metricdata.ResourceMetrics
		require.NoError(t, reader.Collect(context.Background(), &all))
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				points, isSum := m.Data.(metricdata.Sum[int64])
				if m.Name != "bannou.redisbus.dropped" || !isSum {
					continue
				}
				for _, p := range points.DataPoints {
					if name, _ := p.Attributes.Value("queue"); name.AsString() == queue {
						sum += p.Value
					}
				}
			}
		}
		return sum
	}
}

// A session that is slower than its events for longer than they are kept misses some, and each is counted.
func TestRedisSlowSessionCountsWhatItMissed(t *testing.T) {
	t.Parallel()
	const n = 1500
	url := servers.Redis(t).URL
	change, dropped := trimsEarly(t)
	d := openRedis(t, url, change)
	for name, pattern := range map[string]string{"topic": "orders.placed", "pattern": "orders.*"} {
		t.Run(name, func(t *testing.T) {
			q := dynamic(pattern, "1")
			q.Prefetch = 1
			c := subscribe(t, d, q)
			before := dropped(q.Name)
			for i := range n {
				publish(t, d, "orders.placed", fmt.Sprint(i))
			}
			client := plainRedis(t, url)
			require.Eventually(t, func() bool { return client.XLen(t.Context(), "orders.placed").Val() == 0 }, patience, 10*time.Millisecond)
			var sent, handled int64 = n, 0
			for last := ""; last != "last"; { // one is enough, unless it is trimmed too before the session comes to it
				select {
				case got := <-c.Deliveries():
					last = got.Message().ID
					handled++
					require.NoError(t, got.Ack())
				case <-time.After(100 * time.Millisecond):
					publish(t, d, "orders.placed", "last")
					sent++
				}
			}
			require.Eventually(t, func() bool {
				select {
				case got := <-c.Deliveries():
					handled++
					_ = got.Ack()
				default:
				}
				return sent == handled+dropped(q.Name)-before
			}, patience, 10*time.Millisecond)
			t.Logf("sent %d, handled %d, counted as dropped %d", sent, handled, dropped(q.Name)-before)
			require.Less(t, handled, int64(n))
		})
	}
}

// What is published and trimmed while a node cannot reach Redis is counted for each of its sessions when it can again.
func TestRedisSessionsOfANodeThatWasAwayCountWhatTheyMissed(t *testing.T) {
	t.Parallel()
	const n, away = 3, 400
	url := servers.Redis(t).URL
	change, dropped := trimsEarly(t)
	way, through := newRelay(t, url, nil)
	node := openRedis(t, through, change)
	publisher := openRedis(t, url, change)
	var queues [n]bus.Queue
	var handled [n]atomic.Int64
	for i := range n {
		pattern := "orders.placed"
		if i == 1 {
			pattern = "orders.#"
		}
		queues[i] = dynamic(pattern, fmt.Sprint(i))
		c := subscribe(t, node, queues[i])
		go func() {
			for got := range c.Deliveries() {
				_ = got.Ack()
				handled[i].Add(1)
			}
		}()
	}
	var sent int64
	untilHandled := func() { // by all: one is enough, unless it is trimmed before a session is back
		start := [n]int64{handled[0].Load(), handled[1].Load(), handled[2].Load()}
		require.Eventually(t, func() bool {
			sent++
			publish(t, publisher, "orders.placed", fmt.Sprint(sent))
			return handled[0].Load() > start[0] && handled[1].Load() > start[1] && handled[2].Load() > start[2]
		}, patience, 50*time.Millisecond)
	}
	untilHandled()
	for i, q := range queues { // of what is on its way when the connection is cut nobody can tell what was trimmed before it
		require.Eventually(t, func() bool { return sent == handled[i].Load()+dropped(q.Name) }, patience, 10*time.Millisecond)
	}
	way.cut()
	for range away {
		sent++
		publish(t, publisher, "orders.placed", fmt.Sprint(sent))
	}
	client := plainRedis(t, url)
	require.Eventually(t, func() bool { return client.XLen(t.Context(), "orders.placed").Val() == 0 }, patience, 10*time.Millisecond)
	way.mend()
	untilHandled()
	for i, q := range queues {
		assert.Eventually(t, func() bool { return sent == handled[i].Load()+dropped(q.Name) }, patience, 10*time.Millisecond)
		t.Logf("session %d: sent %d, handled %d, counted as dropped %d", i, sent, handled[i].Load(), dropped(q.Name))
		assert.GreaterOrEqual(t, dropped(q.Name), int64(away))
	}
}
