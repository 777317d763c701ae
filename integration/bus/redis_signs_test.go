package bus_test

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/redisbus"
)

// A node's sessions say together that they live: one after another, with Redis some milliseconds away, those of a large node take
// longer than such a sign is good for.
func TestSessionsLiveTogether(t *testing.T) {
	t.Parallel()
	const sessions = 100
	var most atomic.Int64
	_, url := newRelay(t, servers.Redis(t).URL, func(request bool, data []byte) (int, bool) {
		if request {
			most.Store(max(most.Load(), int64(bytes.Count(bytes.ToLower(data), []byte("evalsha")))))
		}
		return len(data), false
	})
	d := openRedis(t, url, func(c *redisbus.Config) { c.ClaimIdle = 3 * time.Second })
	for i := range sessions {
		subscribe(t, d, dynamic("session.updated", fmt.Sprint(i)))
	}
	require.Eventually(t, func() bool { return most.Load() > sessions/4 }, patience, 20*time.Millisecond, "no request has many of them")
	list, err := d.Queues(within(t, patience))
	require.NoError(t, err)
	alive := 0
	for _, q := range list {
		alive += int(q.Consumers)
	}
	require.Equal(t, sessions, alive)
}

// Who reads the dead letters and has lost the lease, as one whose process stood still, hands out no more of them: another may be
// replaying them.
func TestReadingWithoutItsLease(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	d := openRedis(t, url)
	for i := range 60 {
		require.NoError(t, d.Publish(within(t, patience), &bus.Message{Exchange: "bannou-dlx", RoutingKey: "dead-letter.orders", ID: fmt.Sprint(i)}))
	}
	letters, err := d.Letters(within(t, patience))
	require.NoError(t, err)
	_, err = letters.Next(within(t, patience))
	require.NoError(t, err)
	require.NoError(t, plainRedis(t, url).Del(t.Context(), "bannou:{bannou-dlx-store}:reader").Err())
	another, err := openRedis(t, url).Letters(within(t, patience))
	require.NoError(t, err)
	for range 60 {
		if _, err = letters.Next(within(t, patience)); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, bus.ErrUnavailable)
	require.ErrorContains(t, err, "lease")
	_, err = another.Next(within(t, patience))
	require.NoError(t, err)
	require.NoError(t, another.Close(within(t, patience)))
	require.NoError(t, letters.Close(within(t, patience)))
}
