package relay_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/relay"
)

// full is a broker with a queue that takes no more: what goes there is refused.
type full struct{ bus.Driver }

func (f full) Begin(ctx context.Context, m *bus.Message) func() error {
	if m.RoutingKey == "full" {
		return func() error { return fmt.Errorf("%w: %w", bus.ErrNotConfirmed, bus.ErrRefused) }
	}
	return f.Driver.Begin(ctx, m)
}

// A queue that is full holds up its own topic, and events of the same keys. Those of other topics are sent, however many
// are before them, and the broker is not taken for away.
func TestFullQueueHoldsUpNoOther(t *testing.T) {
	driver := full{memorybus.New(memorybus.Config{})}
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	box, err := sqlite.OpenOutbox(t.Context(), state.OutboxConfig{Name: "box", MaxEntries: 10_000, MaxBytes: 1 << 20})
	require.NoError(t, err)
	add := func(topic, id, key string) {
		e, err := relay.NewEntry(t.Context(), bus.Prepared{Topic: topic, Body: []byte(`{}`),
			Options: bus.PublishOptions{MessageID: id, ContentType: "text/plain", PartitionKey: key}})
		require.NoError(t, err)
		require.NoError(t, box.Enqueue(t.Context(), e))
	}
	const refused = 1200 // more than two batches
	add("full", "first of k", "k")
	add("kept", "second of k", "k")
	for i := range refused - 1 {
		add("full", fmt.Sprint("full ", i), "")
	}
	for i := range 10 {
		add("kept", fmt.Sprint("free ", i), "other")
	}
	sent := make(chan string, 100)
	r, err := relay.New(relay.Config{Outbox: box, Bus: b, Service: "test", Sent: func(_ context.Context, _, id string, _ int) { sent <- id }})
	require.NoError(t, err)
	life, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(life) })
	running.Go(func() { r.Run(life) })
	t.Cleanup(func() {
		end()
		running.Wait()
		require.NoError(t, sqlite.Close())
		require.NoError(t, driver.Close(context.Background()))
	})
	for i := range 10 {
		select {
		case id := <-sent:
			require.Equal(t, fmt.Sprint("free ", i), id)
		case <-time.After(20 * time.Second):
			t.Fatal("a full queue holds up the others")
		}
	}
	require.False(t, r.Away())
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		stats, err := box.Stats(t.Context())
		require.NoError(c, err)
		require.EqualValues(c, refused+1, stats.Depth, "nothing of them is lost")
	}, 20*time.Second, time.Millisecond)
	require.Empty(t, sent, "the second of a key waits for the first")
}
