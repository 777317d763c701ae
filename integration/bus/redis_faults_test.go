package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
)

// What was confirmed is handled, whatever happens to Redis between.
func TestRedisBadDays(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(t *testing.T, s *servers.RedisServer, q bus.Queue) error{
		"killed": func(t *testing.T, s *servers.RedisServer, _ bus.Queue) error {
			return errors.Join(s.Kill(), s.Restart(within(t, time.Minute)))
		},
		"group destroyed": func(t *testing.T, s *servers.RedisServer, q bus.Queue) error {
			return plainRedis(t, s.URL).XGroupDestroy(t.Context(), q.Bindings[0].Pattern, q.Name).Err()
		},
		"connections killed": func(t *testing.T, s *servers.RedisServer, _ bus.Queue) error {
			client := plainRedis(t, s.URL)
			ticker := time.NewTicker(200 * time.Millisecond)
			defer ticker.Stop()
			for range 15 {
				<-ticker.C
				if err := client.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes").Err(); err != nil {
					return err
				}
			}
			return nil
		},
		"stopped": func(t *testing.T, s *servers.RedisServer, _ bus.Queue) error {
			if err := s.Pause(); err != nil {
				return err
			}
			<-time.After(2 * time.Second)
			return s.Resume()
		},
	} {
		t.Run(name, func(t *testing.T) { redisUnderLoad(t, harm) })
	}
}

func redisUnderLoad(t *testing.T, harm func(t *testing.T, s *servers.RedisServer, q bus.Queue) error) {
	server := servers.NewRedis(t, servers.RedisOptions{})
	d := openRedis(t, server.URL) // nothing is to wait for the claim time
	lost := underLoad(t, d, func(q bus.Queue, _ func()) error { return harm(t, server, q) })
	require.Zero(t, lost, "acknowledged and lost")
}

// underLoad publishes from sixteen goroutines while harm is done, counts, and returns how many of the confirmed messages
// were lost. Every tenth message is delayed once. goOn waits until some more were confirmed.
func underLoad(t *testing.T, d bus.Driver, harm func(q bus.Queue, goOn func()) error) (lostMessages int) {
	q := durable("load.topic")
	c := subscribe(t, d, q)

	var handled sync.Map // id -> *atomic.Int64
	consumed := make(chan struct{})
	go func() {
		defer close(consumed)
		var working sync.WaitGroup
		defer working.Wait()
		for got := range c.Deliveries() {
			working.Go(func() {
				id := got.Message().ID
				if id[len(id)-1] == '7' && got.Attempt() == 1 {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					if got.Retry(ctx, 300*time.Millisecond) == nil {
						return
					}
				}
				n, _ := handled.LoadOrStore(id, new(atomic.Int64))
				n.(*atomic.Int64).Add(1)
				_ = got.Ack()
			})
		}
	}()

	var sent, confirmed, late atomic.Int64
	var ids sync.Map
	publishing, stop := context.WithCancel(context.Background())
	var publishers sync.WaitGroup
	end := sync.OnceFunc(func() { stop(); publishers.Wait() })
	defer end()
	for p := range 16 {
		publishers.Go(func() {
			for i := 0; publishing.Err() == nil; i++ {
				id := fmt.Sprintf("%d-%d", p, i)
				sent.Add(1)
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // nobody promises how soon another master is there
				err := d.Publish(ctx, &bus.Message{RoutingKey: "load.topic", ID: id, Body: make([]byte, 256)})
				if deadline, _ := ctx.Deadline(); time.Since(deadline) > time.Second {
					late.Add(1)
				}
				cancel()
				if err != nil {
					t.Errorf("publish %s: %v", id, err)
					return
				}
				confirmed.Add(1)
				ids.Store(id, true)
			}
		})
	}
	more := func(n int64) {
		before := confirmed.Load()
		require.Eventually(t, func() bool { return confirmed.Load() > before+n }, patience, time.Millisecond, "publishing goes on")
	}
	more(1000)
	require.NoError(t, harm(q, func() { more(500) }))
	more(500)
	end()

	lost := func() (list []any) {
		ids.Range(func(id, _ any) bool {
			if _, found := handled.Load(id); !found {
				list = append(list, id)
			}
			return true
		})
		return list
	}
	assert.Eventually(t, func() bool { return waiting(t, d, q.Name) == 0 }, patience, 50*time.Millisecond)
	for end := time.Now().Add(patience / 4); len(lost()) > 0 && time.Now().Before(end); { // delayed, or on their way
		<-time.After(50 * time.Millisecond)
	}
	require.NoError(t, c.Close(within(t, patience)))
	<-consumed
	var once, duplicated int64
	handled.Range(func(_, n any) bool {
		once++
		duplicated += n.(*atomic.Int64).Load() - 1
		return true
	})
	t.Logf("sent %d, confirmed %d, handled %d, duplicated %d, lost %d, late %d", sent.Load(), confirmed.Load(), once, duplicated, len(lost()), late.Load())
	require.Zero(t, late.Load())
	require.Equal(t, sent.Load(), confirmed.Load())
	return len(lost())
}

// A topic's stream that is deleted takes what was in it; what is published after is handled.
func TestRedisStreamDeleted(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	d := openRedis(t, url)
	c, session := subscribe(t, d, durable("orders.placed")), subscribe(t, d, dynamic("orders.placed", "1"))
	for i := range 3 {
		require.NoError(t, plainRedis(t, url).Del(t.Context(), "orders.placed").Err())
		publish(t, d, "orders.placed", fmt.Sprint(i))
		for _, c := range []bus.Consumer{c, session} {
			got := next(t, c)
			require.Equal(t, fmt.Sprint(i), got.Message().ID)
			require.NoError(t, got.Ack())
		}
	}
}

// Redis that is stopped answers nothing: callers return by their deadlines all the same.
func TestRedisStopped(t *testing.T) {
	t.Parallel()
	server := servers.NewRedis(t, servers.RedisOptions{})
	d := openRedis(t, server.URL)
	c := subscribe(t, d, durable("orders.placed"))
	publish(t, d, "orders.placed", "before")
	require.NoError(t, next(t, c).Ack())
	require.NoError(t, server.Pause())
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			begin, deadline := time.Now(), time.Duration(100+50*i)*time.Millisecond
			err := d.Publish(within(t, deadline), &bus.Message{RoutingKey: "orders.placed", ID: "stuck", Body: make([]byte, 1<<20)})
			assert.Less(t, time.Since(begin)-deadline, patience)
			known := errors.Is(err, bus.ErrNotConfirmed) || errors.Is(err, bus.ErrUnavailable)
			assert.True(t, known && errors.Is(err, context.DeadlineExceeded), "%v", err)
		})
	}
	wg.Wait()
	_, err := d.Subscribe(within(t, 200*time.Millisecond), durable("paused.two"))
	require.ErrorIs(t, err, bus.ErrUnavailable)
	_, err = d.Queues(within(t, 200*time.Millisecond))
	require.ErrorIs(t, err, bus.ErrUnavailable)
	require.NoError(t, server.Resume())
	publish(t, d, "orders.placed", "after")
	for {
		got := next(t, c)
		require.NoError(t, got.Ack())
		if got.Message().ID == "after" {
			return
		}
	}
}
