package relay_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/relay"
)

// A slow broker is new, and takes its time for the queues: until it was asked three times whether it is there, or something was published.
type slow struct {
	bus.Driver
	mu    sync.Mutex
	asked int
	open  chan struct{}
}

func (s *slow) ask(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.asked; before < 3 {
		if s.asked += n; s.asked >= 3 {
			close(s.open)
		}
	}
}

func (s *slow) Ready(ctx context.Context) error {
	s.ask(1)
	return s.Driver.Ready(ctx)
}

func (s *slow) Begin(ctx context.Context, m *bus.Message) func() error {
	defer s.ask(3)
	return s.Driver.Begin(ctx, m)
}

func (s *slow) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	select {
	case <-s.open:
		return s.Driver.Subscribe(ctx, q)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// openSlow returns a bus over a new broker, and what its handler of a topic is given.
func openSlow(t *testing.T) (*bus.Bus, <-chan string) {
	t.Helper()
	driver := &slow{Driver: memorybus.New(memorybus.Config{}), open: make(chan struct{})}
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	arrived := make(chan string, 10)
	require.NoError(t, b.HandleRaw("order.placed", "place", func(_ context.Context, r *bus.Received) error {
		arrived <- r.MessageID
		return nil
	}, bus.SubscriptionOptions{}))
	life, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.Run(life) })
	t.Cleanup(func() { end(); running.Wait(); require.NoError(t, driver.Close(context.Background())) })
	return b, arrived
}

// What was in the log before a broker was there reaches the handlers beside the relay, whose queues are not there yet.
func TestLogWaitsForTheQueuesOfANewBroker(t *testing.T) {
	b, arrived := openSlow(t)
	store := memoryevents.New(eventstore.Config{})
	id := "018f3e1c-0000-7000-8000-000000000001"
	_, err := store.Append(t.Context(), order("o-1"), 0, eventstore.Event{ID: id, Type: "placed", Data: jsontext.Value(`{}`)})
	require.NoError(t, err)
	startLog(t, relay.LogConfig{Store: store, Bus: b, Messages: publish})
	require.Equal(t, id, <-arrived)
}

// So does what was in a table.
func TestRelayWaitsForTheQueuesOfANewBroker(t *testing.T) {
	b, arrived := openSlow(t)
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sqlite.Close()) })
	box, err := sqlite.OpenOutbox(t.Context(), state.OutboxConfig{Name: "box", MaxEntries: 10, MaxBytes: 1 << 20})
	require.NoError(t, err)
	e, err := relay.NewEntry(t.Context(), bus.Prepared{Topic: "order.placed", Body: []byte(`{}`), Options: bus.PublishOptions{MessageID: "kept", ContentType: "text/plain"}})
	require.NoError(t, err)
	require.NoError(t, box.Enqueue(t.Context(), e))
	r, err := relay.New(relay.Config{Outbox: box, Bus: b, Service: "test"})
	require.NoError(t, err)
	life, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(life) })
	t.Cleanup(func() { end(); running.Wait() })
	require.Equal(t, "kept", <-arrived)
}

// A relay whose bus never comes to read its queues ends all the same.
func TestLogThatNeverBeginsEnds(t *testing.T) {
	driver := &slow{Driver: memorybus.New(memorybus.Config{}), asked: -1 << 40, open: make(chan struct{})}
	b, err := bus.New(driver, bus.Config{})
	require.NoError(t, err)
	require.NoError(t, b.HandleRaw("order.placed", "place", func(context.Context, *bus.Received) error { return nil }, bus.SubscriptionOptions{}))
	l, err := relay.NewLog(relay.LogConfig{Store: memoryevents.New(eventstore.Config{}), Bus: b, Name: "orders", Category: "order", Messages: publish})
	require.NoError(t, err)
	require.NoError(t, l.Start(t.Context()))
	require.Eventually(t, func() bool {
		return strings.Contains(l.Ready(t.Context()).Error(), "wait in their log until the bus is ready")
	}, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, l.Stop(t.Context()))
	require.NoError(t, b.Close(t.Context()))
	require.NoError(t, driver.Close(t.Context()))
}
