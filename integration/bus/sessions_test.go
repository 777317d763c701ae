package bus_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
)

// sessions are many dynamic subscriptions on one bus, each to the topics of one session.
type sessions struct {
	bus      *bus.Bus
	subs     []*bus.Subscription
	received []atomic.Int64 // by session
	strays   atomic.Int64   // events of another session
}

// openSessions subscribes n sessions, several at a time, as clients that connect do.
func openSessions(t *testing.T, b *bus.Bus, n int) *sessions {
	t.Helper()
	s := &sessions{bus: b, subs: make([]*bus.Subscription, n), received: make([]atomic.Int64, n)}
	s.each(n, func(i int) {
		own := fmt.Sprintf("session.%d.capabilities", i)
		sub, err := b.SubscribeRaw(within(t, 2*time.Minute), fmt.Sprintf("session.%d.*", i), func(_ context.Context, r *bus.Received) error {
			if r.Topic != own {
				s.strays.Add(1)
			}
			s.received[i].Add(1)
			return nil
		}, bus.SubscriptionOptions{})
		assert.NoError(t, err)
		s.subs[i] = sub
	})
	require.False(t, t.Failed())
	return s
}

// each does something for each of n sessions, 64 at a time.
func (s *sessions) each(n int, do func(i int)) {
	var next atomic.Int64
	var working sync.WaitGroup
	for range 64 {
		working.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	working.Wait()
}

// tell publishes one event to each session and waits until each has had its own, the so-manieth.
func (s *sessions) tell(t *testing.T, round int64) {
	t.Helper()
	s.each(len(s.subs), func(i int) {
		_, err := s.bus.PublishRaw(within(t, 2*time.Minute), fmt.Sprintf("session.%d.capabilities", i), []byte(`{}`), bus.PublishOptions{Mandatory: true})
		assert.NoError(t, err)
	})
	require.False(t, t.Failed())
	require.Eventually(t, func() bool {
		for i := range s.received {
			if s.received[i].Load() < round {
				return false
			}
		}
		return true
	}, time.Minute, 20*time.Millisecond)
	require.Zero(t, s.strays.Load(), "events of another session")
	for i := range s.received {
		require.Equal(t, round, s.received[i].Load(), "session %d", i)
	}
}

func (s *sessions) close(t *testing.T) {
	t.Helper()
	s.each(len(s.subs), func(i int) { assert.NoError(t, s.subs[i].Close(within(t, 2*time.Minute))) })
}

// footprint is what this process has in use after a collection.
func footprint() (bytes uint64, goroutines int) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse, runtime.NumGoroutine()
}

// Ten thousand clients on one node: a queue each, and far fewer channels, each gets its own events, and nothing is left of
// them when they have gone.
func TestTenThousandSessions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	const n = 10_000
	broker := servers.NewRabbitMQ(t, servers.RabbitOptions{}) // without statistics, over which the removal of each queue makes a scan
	for _, c := range []struct {
		name   string
		driver func(t *testing.T) bus.Driver
	}{
		{"memory", func(t *testing.T) bus.Driver {
			d := memorybus.New(memorybus.Config{})
			t.Cleanup(func() { require.NoError(t, d.Close(context.Background())) })
			return d
		}},
		{"rabbitmq", func(t *testing.T) bus.Driver { return open(t, broker.URL) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := c.driver(t)
			b, err := bus.New(d, bus.Config{})
			require.NoError(t, err)
			warm := openSessions(t, b, 1) // whatever a first one needs
			warm.close(t)
			before, idle := footprint()

			start := time.Now()
			s := openSessions(t, b, n)
			opened := time.Since(start)
			used, working := footprint()
			start = time.Now()
			s.tell(t, 1)
			told := time.Since(start)
			start = time.Now()
			s.close(t)
			t.Logf("%d sessions: opened in %s, told in %s, closed in %s; each %.1f KiB and %.2f goroutines", n, opened.Round(time.Millisecond),
				told.Round(time.Millisecond), time.Since(start).Round(time.Millisecond), float64(used-before)/n/1024, float64(working-idle)/n)
			require.Less(t, working-idle, 4*n, "goroutines")
			require.NoError(t, b.Close(within(t, patience))) // which ends the goroutines that it keeps for later
			require.Eventually(t, func() bool { return runtime.NumGoroutine() <= idle+20 }, patience, 20*time.Millisecond, "goroutines are left")
			queues, err := d.Queues(within(t, patience))
			require.NoError(t, err)
			for _, q := range queues {
				require.NotContains(t, q.Name, "session.", "a queue is left")
			}
		})
	}
}

// All sessions come back after their broker was killed, each with a queue of its own again.
func TestSessionsComeBackAfterTheBroker(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	const n = 1000
	broker := servers.NewRabbitMQ(t, servers.RabbitOptions{})
	d := open(t, broker.URL)
	b, err := bus.New(d, bus.Config{})
	require.NoError(t, err)
	s := openSessions(t, b, n)
	s.tell(t, 1)
	require.NoError(t, broker.Kill())
	require.NoError(t, broker.Restart(within(t, time.Minute)))
	start := time.Now()
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		queues, err := d.Queues(context.Background())
		if !assert.NoError(t, err) {
			return
		}
		read := 0
		for _, q := range queues {
			if strings.HasPrefix(q.Name, "session.") && q.Consumers == 1 {
				read++
			}
		}
		assert.Equal(t, n, read)
	}, time.Minute, 250*time.Millisecond)
	t.Logf("%d sessions were back %s after their broker", n, time.Since(start).Round(time.Millisecond))
	s.tell(t, 2)
	s.close(t)
	require.NoError(t, b.Close(within(t, patience)))
}
