package relay_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/services/relay"
)

// A standstill is that of a process which is stopped, and goes on later.
type standstill struct {
	mu sync.Mutex
	on chan struct{} // nil: it does not stand still
}

func (s *standstill) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = make(chan struct{})
}

func (s *standstill) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.on != nil {
		close(s.on)
		s.on = nil
	}
}

// pass waits whatever becomes of any context, as a process that is stopped does.
func (s *standstill) pass() {
	s.mu.Lock()
	on := s.on
	s.mu.Unlock()
	if on != nil {
		<-on
	}
}

// The log and the broker of a leader that is stopped when it has begun to publish so many events.
type (
	stoppedLog struct {
		eventstore.Engine
		still  *standstill
		claims chan struct{}
	}
	stoppedBroker struct {
		bus.Driver
		still *standstill
		most  int64
		begun atomic.Int64
	}
)

func (l *stoppedLog) Renew(ctx context.Context, lease eventstore.Lease) error {
	l.still.pass()
	return l.Engine.Renew(ctx, lease)
}

func (l *stoppedLog) Advance(ctx context.Context, lease eventstore.Lease, to eventstore.Advance, within func(*sql.Tx) error) error {
	l.still.pass()
	return l.Engine.Advance(ctx, lease, to, within)
}

// Claim is called when what was led before has ended.
func (l *stoppedLog) Claim(ctx context.Context, c eventstore.Claim) (eventstore.Lease, bool, error) {
	l.still.pass()
	select {
	case l.claims <- struct{}{}:
	default:
	}
	return l.Engine.Claim(ctx, c)
}

func (b *stoppedBroker) Begin(ctx context.Context, m *bus.Message) func() error {
	if b.begun.Add(1) == b.most {
		b.still.begin()
	}
	confirm := b.Driver.Begin(ctx, m)
	return func() error {
		err := confirm()
		b.still.pass()
		return err
	}
}

// A leader is stopped with events under way, another one leads, and the first comes back: it begins none of the events that it has read, and enters nothing.
// All arrive, and the first arrivals of each stream in its order.
func TestLeaderThatComesBackPublishesNothing(t *testing.T) {
	broker := memorybus.New(memorybus.Config{})
	second, arrived := openBus(t, broker, "order.placed")
	still := &standstill{}
	const streams, each, most = 6, 20, 40
	stopped := &stoppedBroker{Driver: broker, still: still, most: most}
	first, err := bus.New(stopped, bus.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, first.Close(context.Background())) })
	store := memoryevents.New(eventstore.Config{})
	versions := map[string]int64{}
	fill := func(n int) {
		for range n {
			for i := range streams {
				_, err := store.Append(t.Context(), order(fmt.Sprint(i)), eventstore.Any, eventstore.Event{Type: "placed", Data: jsontext.Value(`{}`)})
				require.NoError(t, err)
			}
		}
		for e, err := range store.ReadCategory(t.Context(), "order", eventstore.ReadOptions{}) {
			require.NoError(t, err)
			versions[e.ID] = e.Version
		}
	}
	fill(each)
	seen, last := map[string]bool{}, map[string]int64{}
	arrive := func(all int) {
		t.Helper()
		for len(seen) < all {
			r := next(t, arrived)
			if seen[r.MessageID] {
				continue
			}
			seen[r.MessageID] = true
			key := r.Headers[bus.HeaderPartitionKey]
			require.Equal(t, last[key]+1, versions[r.MessageID], "stream %s", key)
			last[key]++
		}
	}

	log := &stoppedLog{Engine: store.Engine(), still: still, claims: make(chan struct{}, 1)}
	lead := relay.LogConfig{Store: eventstore.New(log, eventstore.Config{}), Bus: first, Messages: publish, Lease: 200 * time.Millisecond, InFlight: 2 * streams} // more than streams: the next event of each is read
	startLog(t, lead)
	t.Cleanup(still.end) // before the leader is ended
	require.Eventually(t, func() bool { return stopped.begun.Load() >= most }, 20*time.Second, time.Millisecond)
	lead.Store, lead.Bus = store, second
	startLog(t, lead)
	arrive(streams * each)
	require.NotEmpty(t, log.claims, "it has led")
	<-log.claims

	begun := stopped.begun.Load()
	still.end()
	select {
	case <-log.claims: // it has looked for another lead
	case <-time.After(20 * time.Second):
		require.FailNow(t, "the first leader goes on")
	}
	require.Equal(t, begun, stopped.begun.Load(), "the first leader has published more")
	fill(1)
	arrive(streams * (each + 1))
	require.Eventually(t, func() bool {
		marks, err := store.Marks(t.Context(), "orders")
		return err == nil && marks[0].Position == streams*(each+1)
	}, 20*time.Second, 5*time.Millisecond)
	parked, err := store.Parked(t.Context(), "orders")
	require.NoError(t, err)
	require.Empty(t, parked)
}
