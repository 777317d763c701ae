package relay_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// moody is a broker that does not confirm some of what it is sent, whether it took it or not.
type moody struct {
	bus.Driver
	mu     sync.Mutex
	random *rand.Rand
	refuse float64
}

func (m *moody) Begin(ctx context.Context, message *bus.Message) func() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	refused, lost := m.random.Float64() < m.refuse, m.random.IntN(2) == 0
	if !refused {
		return m.Driver.Begin(ctx, message)
	}
	if !lost {
		if err := m.Publish(ctx, message); err != nil {
			return func() error { return err }
		}
	}
	return func() error { return bus.ErrNotConfirmed }
}

// Three relays of as many processes send one outbox that is filled meanwhile, through a broker that fails. Every event
// arrives, and of each key the last arrivals are in order.
func TestSeveralRelaysOfOneOutbox(t *testing.T) {
	const relays, keys, each = 3, 5, 80
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	driver := &moody{Driver: memorybus.New(memorybus.Config{}), random: rand.New(rand.NewPCG(seed, 0)), refuse: 0.05}
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	life, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(life) })
	arrived := make(chan string, 100_000)
	_, err = b.SubscribeRaw(t.Context(), "kept", func(_ context.Context, r *bus.Received) error {
		arrived <- r.MessageID
		return nil
	}, bus.SubscriptionOptions{PrefetchCount: 1})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "state.db")
	var all []*relay.Relay
	var boxes []state.Outbox
	for range relays {
		sqlite, err := sqlitestate.New(sqlitestate.Config{Path: path})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, sqlite.Close()) })
		box, err := sqlite.OpenOutbox(t.Context(), state.OutboxConfig{Name: "box", MaxEntries: 10_000, MaxBytes: 1 << 30})
		require.NoError(t, err)
		r, err := relay.New(relay.Config{Outbox: box, Bus: b, Service: "test"})
		require.NoError(t, err)
		all, boxes = append(all, r), append(boxes, box)
		running.Go(func() { r.Run(life) })
	}
	t.Cleanup(func() { stop(); running.Wait(); require.NoError(t, driver.Close(context.Background())) })

	var writers sync.WaitGroup
	failed := make(chan error, keys)
	for k := range keys {
		entries := make([]state.OutboxEntry, each)
		for i := range entries {
			entries[i], err = relay.NewEntry(t.Context(), bus.Prepared{Topic: "kept", Body: []byte(`{}`), Options: bus.PublishOptions{
				MessageID: fmt.Sprintf("%d-%d", k, i), ContentType: "text/plain", PartitionKey: fmt.Sprint("key", k)}})
			require.NoError(t, err)
		}
		writers.Go(func() {
			for i, e := range entries {
				var err error
				if i%2 == 0 {
					err = all[i%relays].Enqueue(t.Context(), e)
				} else { // as an engine does that has told nobody yet
					err = boxes[i%relays].Enqueue(t.Context(), e)
				}
				if err != nil {
					failed <- err
					return
				}
				all[(i+1)%relays].Added(t.Context())
			}
		})
	}
	writers.Wait()
	require.Empty(t, failed)
	require.Eventually(t, func() bool {
		stats, err := boxes[0].Stats(t.Context())
		return err == nil && stats.Depth == 0 && stats.Parked == 0
	}, 40*time.Second, 10*time.Millisecond)

	const end = "behind all"
	_, err = b.PublishRaw(t.Context(), "kept", []byte(`{}`), bus.PublishOptions{MessageID: end, ContentType: "text/plain"})
	require.NoError(t, err)
	last, arrivals := map[string]int{}, 0
	for id := <-arrived; id != end; id = <-arrived {
		last[id] = arrivals
		arrivals++
	}
	require.Len(t, last, keys*each, "acknowledged and lost")
	for k := range keys {
		for i := range each - 1 {
			require.Less(t, last[fmt.Sprintf("%d-%d", k, i)], last[fmt.Sprintf("%d-%d", k, i+1)], "key %d, event %d", k, i)
		}
	}
	t.Logf("%d events, %d arrived twice", keys*each, arrivals-len(last))
}

// Until the table was read once, nobody may count on it: a node that has just started, without its database, is not ready.
func TestTroubleUntilTheTableWasRead(t *testing.T) {
	b, err := bus.New(memorybus.New(memorybus.Config{}), bus.Config{})
	require.NoError(t, err)
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sqlite.Close()) })
	box, err := sqlite.OpenOutbox(t.Context(), state.OutboxConfig{Name: "box", MaxEntries: 10, MaxBytes: 1 << 20})
	require.NoError(t, err)
	r, err := relay.New(relay.Config{Outbox: box, Bus: b, Service: "test"})
	require.NoError(t, err)
	require.Error(t, r.Trouble())
	require.NoError(t, r.Refresh(t.Context()))
	require.NoError(t, r.Trouble())
}

// What somebody else has added is sent when the relay is told, and not with the next look at the table.
func TestAddedIsSentAtOnce(t *testing.T) {
	driver := memorybus.New(memorybus.Config{})
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	box, err := sqlite.OpenOutbox(t.Context(), state.OutboxConfig{Name: "box", MaxEntries: 10, MaxBytes: 1 << 20})
	require.NoError(t, err)
	sent := make(chan string, 10)
	r, err := relay.New(relay.Config{Outbox: box, Bus: b, Service: "test", Sent: func(_ context.Context, _, id string, _ int) { sent <- id }})
	require.NoError(t, err)
	life, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(life) })
	running.Go(func() { r.Run(life) })
	for i := range 20 {
		e, err := relay.NewEntry(t.Context(), bus.Prepared{Topic: "kept", Body: []byte(`{}`), Options: bus.PublishOptions{MessageID: fmt.Sprint(i), ContentType: "text/plain"}})
		require.NoError(t, err)
		require.NoError(t, box.Enqueue(t.Context(), e))
		begun := time.Now()
		r.Added(t.Context())
		require.Equal(t, fmt.Sprint(i), <-sent)
		require.Less(t, time.Since(begun), 5*time.Second)
	}
	end()
	running.Wait()
	require.NoError(t, sqlite.Close())
	require.NoError(t, driver.Close(context.Background()))
}
