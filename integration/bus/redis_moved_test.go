package bus_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
)

// cuts has a connection cut after so many bytes of what is asked or answered, in the middle of a command or of its answer,
// as drawn from a seed that is printed.
func cuts(t testing.TB, most int) func(request bool, data []byte) (pass int, cut bool) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex
	left := most
	return func(_ bool, data []byte) (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if left -= len(data); left > 0 {
			return len(data), false
		}
		left = 1 + random.IntN(most)
		return random.IntN(len(data)), true
	}
}

// Connections are cut while messages wait for their delay, go back and are acknowledged: each comes again once, whichever
// command or answer the cut hit.
func TestRedisRetriesOverCutConnections(t *testing.T) {
	t.Parallel()
	const n = 900
	url := servers.Redis(t).URL
	watch := cuts(t, 100_000)
	var armed atomic.Bool
	var cut atomic.Int64
	_, through := newRelay(t, url, func(request bool, data []byte) (int, bool) {
		if !armed.Load() {
			return len(data), false
		}
		pass, end := watch(request, data)
		if end {
			cut.Add(1)
		}
		return pass, end
	})
	publisher := openRedis(t, url)
	d := openRedis(t, through, func(c *redisbus.Config) { c.MaxRetryDelay = 100 * time.Millisecond })
	q := durable("orders.placed")
	c := subscribe(t, d, q)
	var handled [n]atomic.Int64
	var working sync.WaitGroup
	working.Go(func() {
		for got := range c.Deliveries() {
			working.Go(func() {
				var i int
				_, _ = fmt.Sscan(got.Message().ID, &i)
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				switch times := handled[i].Add(1); {
				case times > 1:
					_ = got.Ack()
				case i%3 == 0:
					_ = got.Requeue()
				case got.Retry(ctx, time.Duration(i%50)*time.Millisecond) != nil:
					_ = got.Requeue()
				}
			})
		}
	})
	armed.Store(true)
	for i := range n {
		publish(t, publisher, "orders.placed", fmt.Sprint(i))
	}
	finished := func() bool {
		for i := range handled {
			if handled[i].Load() < 2 {
				return false
			}
		}
		return waiting(t, publisher, q.Name) == 0
	}
	if !assert.Eventually(t, finished, patience, 50*time.Millisecond) {
		for i := range handled {
			if handled[i].Load() < 2 {
				t.Logf("%d was handled %d times", i, handled[i].Load())
			}
		}
		t.Logf("waiting %d, delayed %d, cuts %d", waiting(t, publisher, q.Name), plainRedis(t, url).ZCard(t.Context(), "bannou:{"+q.Name+"}:delayed").Val(), cut.Load())
	}
	armed.Store(false)
	require.NoError(t, c.Close(within(t, patience)))
	working.Wait()
	again := int64(0)
	for i := range handled {
		again += handled[i].Load() - 2
	}
	t.Logf("sent %d, each handled and then given back or delayed, handled again %d times too often, lost 0, over %d cuts", n, again, cut.Load())
	require.Zero(t, again)
	require.Positive(t, cut.Load())
	require.Zero(t, plainRedis(t, url).ZCard(t.Context(), "bannou:{"+q.Name+"}:moved").Val(), "notes are left")
}

// Nodes die while they have messages delayed, with each command at risk: others handle every message once.
func TestRedisNodesThatDieDelaying(t *testing.T) {
	t.Parallel()
	const rounds, each = 12, 20
	url := servers.Redis(t).URL
	short := func(c *redisbus.Config) { c.ClaimIdle = 400 * time.Millisecond }
	d := openRedis(t, url, short)
	q := durable("orders.placed")
	require.NoError(t, subscribe(t, d, q).Close(within(t, patience)))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var buried sync.WaitGroup
	for round := range rounds {
		for i := range each {
			publish(t, d, "orders.placed", fmt.Sprint(round*each+i))
		}
		var left atomic.Int64
		left.Store(int64(1_000 + random.IntN(20_000)))
		var way *relay
		way, through := newRelay(t, url, func(_ bool, data []byte) (int, bool) {
			rest := left.Add(int64(-len(data)))
			if rest > 0 {
				return len(data), false
			}
			go way.cut() // for good
			return max(0, len(data)+int(rest)), true
		})
		cfg := redisbus.Config{URLs: []string{through}}
		short(&cfg)
		dying, err := redisbus.New(cfg)
		require.NoError(t, err)
		dyingWithin, cancel := context.WithTimeout(t.Context(), time.Second)
		c, err := dying.Subscribe(dyingWithin, q)
		if err == nil {
			var working sync.WaitGroup
			for taken := 0; taken < each && dyingWithin.Err() == nil; taken++ {
				select {
				case got := <-c.Deliveries():
					if got.Attempt() == 1 {
						working.Go(func() { _ = got.Retry(dyingWithin, 50*time.Millisecond) })
					}
				case <-dyingWithin.Done():
				case <-time.After(500 * time.Millisecond): // it is dead
					taken = each
				}
			}
			working.Wait()
		}
		cancel()
		way.cut()
		buried.Go(func() { _ = dying.Close(dyingWithin) })
	}
	defer buried.Wait()
	c := subscribe(t, d, q)
	handled := map[string]int{}
	for len(handled) < rounds*each {
		got := next(t, c)
		handled[got.Message().ID]++
		require.NoError(t, got.Ack())
	}
	again := 0
	for waiting(t, d, q.Name) > 0 || plainRedis(t, url).ZCard(t.Context(), "bannou:{"+q.Name+"}:delayed").Val() > 0 {
		select {
		case got := <-c.Deliveries():
			handled[got.Message().ID]++
			require.NoError(t, got.Ack())
		case <-time.After(10 * time.Millisecond):
		}
	}
	for _, n := range handled {
		again += n - 1
	}
	t.Logf("sent %d to %d nodes that died delaying them, handled %d, duplicated %d, lost 0", rounds*each, rounds, len(handled), again)
	require.Zero(t, again)
}
