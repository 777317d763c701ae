package mirror

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What is missing, doubled and late is told apart, on either side.
func TestEventsAreHeldAgainstEachOther(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	l := NewLedger(Config{Patience: 30 * time.Second, Late: 5 * time.Second})
	l.now = func() time.Time { return now }
	for _, id := range []string{"both", "here", "slow", "after"} {
		l.Saw("orders", Here, id)
	}
	for _, id := range []string{"both", "there", "twice", "twice"} {
		l.Saw("orders", There, id)
	}
	l.Saw("orders", Here, "twice")
	now = now.Add(10 * time.Second)
	l.Saw("orders", There, "slow")
	r, _ := l.Report("orders", time.Minute)
	require.Zero(t, r.Compared())
	require.EqualValues(t, 6, r.Waiting)
	now = now.Add(25 * time.Second)
	r, _ = l.Report("orders", time.Minute)
	require.Equal(t, map[string]int64{"missing-here": 1, "missing-there": 2, "doubled-there": 1, "late": 1}, r.Reasons())
	require.EqualValues(t, 3, r.Both)
	now = now.Add(10 * time.Second)
	l.Saw("orders", There, "after") // it was missing, and comes now
	r, _ = l.Report("orders", time.Minute)
	require.EqualValues(t, 2, r.Late)
	require.Equal(t, Found{"after", "late", now.UTC()}, r.Recent[0])
	now = now.Add(10 * time.Minute)
	r, _ = l.Report("orders", time.Minute)
	require.Zero(t, r.Compared()+r.Waiting)
	require.Empty(t, l.topics["orders"].events, "what was counted for long is forgotten")
}

func TestEventsAtOnceAreBounded(t *testing.T) {
	l := NewLedger(Config{Most: 10})
	for i := range 25 {
		l.Saw("orders", Here, fmt.Sprint(i))
	}
	r, _ := l.Report("orders", time.Minute)
	require.EqualValues(t, 10, r.Waiting)
	require.EqualValues(t, 15, r.Skipped)
}

// watched reports whether a watch reads the topic orders.
func watched(t *testing.T, d bus.Driver) bool {
	queues, err := d.Queues(t.Context())
	return err == nil && slices.ContainsFunc(queues, func(q bus.QueueInfo) bool { return strings.HasPrefix(q.Name, "mirror.orders.") })
}

// seen is how many events of the topic orders each side has seen.
func seen(l *Ledger) (n [2]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.topics["orders"].events {
		for side, at := range e.seen {
			if !at.IsZero() {
				n[side]++
			}
		}
	}
	return n
}

// What lies in the other way's place and is none of its events is taken from there, and not counted.
func TestWatchCountsWhatTheOtherWayCanRead(t *testing.T) {
	here, there := memorybus.New(memorybus.Config{}), memorybus.New(memorybus.Config{})
	defer func() {
		require.NoError(t, here.Close(context.Background()))
		require.NoError(t, there.Close(context.Background()))
	}()
	l := NewLedger(Config{})
	w, err := Start(WatchConfig{Here: here, There: there, Topics: []string{"orders"}, Ledger: l,
		Counts: func(m *bus.Message) bool { return m.Headers[bus.HeaderEnvelope] != "" }})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return watched(t, here) && watched(t, there) }, 30*time.Second, time.Millisecond)
	publish := func(d bus.Driver, id string, headers map[string]string) {
		require.NoError(t, d.Publish(t.Context(), &bus.Message{RoutingKey: "orders", ID: id, Headers: headers, Body: []byte("{}")}))
	}
	publish(there, "native", nil)
	publish(there, "enveloped", map[string]string{bus.HeaderEnvelope: "true"})
	publish(here, "native", nil)
	publish(here, "enveloped", nil)
	require.Eventually(t, func() bool { return seen(l) == [2]int{2, 1} }, 30*time.Second, time.Millisecond)
	require.NoError(t, w.Close(t.Context()))
	require.Equal(t, [2]int{2, 1}, seen(l))
}

// A watch sees what is published on both ways, by the events' own ids, takes nothing from anybody, and misses what one of them lost.
func TestWatch(t *testing.T) {
	here, there := memorybus.New(memorybus.Config{}), memorybus.New(memorybus.Config{})
	defer func() {
		require.NoError(t, here.Close(context.Background()))
		require.NoError(t, there.Close(context.Background()))
	}()
	l := NewLedger(Config{})
	var later atomic.Int64 // seconds
	l.now = func() time.Time { return time.Unix(1_000_000+later.Load(), 0) }
	w, err := Start(WatchConfig{Here: here, There: there, Topics: []string{"orders"}, Ledger: l})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return watched(t, here) && watched(t, there) }, 30*time.Second, time.Millisecond)
	reader, err := here.Subscribe(t.Context(), bus.Queue{Name: "theirs", Bindings: []bus.Binding{{Pattern: "orders"}}, Prefetch: 1000})
	require.NoError(t, err)
	publish := func(d bus.Driver, message, event string) {
		body := fmt.Sprintf(`{"eventId":%q}`, event)
		if d == there {
			body = fmt.Sprintf(`{"specversion":"1.0","id":%q,"data":%s}`, message, body)
		}
		require.NoError(t, d.Publish(t.Context(), &bus.Message{RoutingKey: "orders", ID: message, Body: []byte(body)}))
	}
	for i := range 100 {
		publish(here, fmt.Sprint("flat", i), fmt.Sprint(i))
		if i != 42 {
			publish(there, fmt.Sprint("enveloped", i), fmt.Sprint(i))
		}
	}
	var r Report
	require.Eventually(t, func() bool { return seen(l) == [2]int{100, 99} }, 30*time.Second, time.Millisecond)
	later.Store(35) // the patience is over
	r, _ = l.Report("orders", time.Minute)
	require.EqualValues(t, 100, r.Compared())
	require.EqualValues(t, 99, r.Both)
	require.Equal(t, map[string]int64{"missing-there": 1}, r.Reasons())
	require.Equal(t, "42", r.Recent[0].ID)
	for range 100 { // the other reader has had all
		require.NoError(t, (<-reader.Deliveries()).Ack())
	}
	require.NoError(t, reader.Close(t.Context()))
	require.NoError(t, w.Close(t.Context()))
	require.False(t, watched(t, there), "the queues of the watch go with it")
}
