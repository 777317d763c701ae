package relay_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/relay"
)

// A lateBox is the outbox of a process whose first claims are answered later than they are made.
type lateBox struct {
	state.Outbox
	mu      sync.Mutex
	entries []state.OutboxEntry
	late    []time.Duration
	claimed time.Time // when the last claim was made
}

func (b *lateBox) Claim(_ context.Context, c state.OutboxClaim) ([]state.OutboxEntry, error) {
	b.mu.Lock()
	b.claimed = time.Now()
	batch := append([]state.OutboxEntry(nil), b.entries[:min(len(b.entries), c.MaxEntries)]...)
	late := time.Duration(0)
	if len(b.late) > 0 {
		late, b.late = b.late[0], b.late[1:]
	}
	b.mu.Unlock()
	time.Sleep(late) //nolint:forbidigo // the time of synctest
	return batch, nil
}

func (b *lateBox) Delete(_ context.Context, _ string, ids ...int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(ids) > 0 && len(b.entries) > 0 && b.entries[0].ID == ids[0] {
		b.entries, ids = b.entries[1:], ids[1:]
	}
	return nil
}

func (b *lateBox) Release(context.Context, string, ...int64) error { return nil }

func (b *lateBox) Stats(context.Context) (state.OutboxStats, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return state.OutboxStats{Depth: int64(len(b.entries))}, nil
}

func (b *lateBox) age() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Since(b.claimed)
}

// A watched broker is told of each event that is begun.
type watched struct {
	bus.Driver
	begin func(m *bus.Message)
}

func (w *watched) Begin(ctx context.Context, m *bus.Message) func() error {
	w.begin(m)
	return w.Driver.Begin(ctx, m)
}

// A claim lasts from when it was asked for: what its answer comes too late for, as to a process that was stopped, another relay may have sent by
// then with what follows it. None of it is begun; it is claimed anew.
func TestClaimThatIsAnsweredLateIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &lateBox{late: []time.Duration{25 * time.Second, 40 * time.Second, 15 * time.Second}}
		for i := range 3 {
			e, err := relay.NewEntry(t.Context(), bus.Prepared{Topic: "kept", Body: []byte(`{}`), Options: bus.PublishOptions{
				MessageID: fmt.Sprint(i), ContentType: "text/plain", PartitionKey: "key"}})
			require.NoError(t, err)
			e.ID = int64(i + 1)
			box.entries = append(box.entries, e)
		}
		var ages []time.Duration
		var ids []string
		driver := &watched{Driver: memorybus.New(memorybus.Config{}), begin: func(m *bus.Message) { ages, ids = append(ages, box.age()), append(ids, m.ID) }}
		b, err := bus.New(driver, bus.Config{})
		require.NoError(t, err)
		r, err := relay.New(relay.Config{Outbox: box, Bus: b, Service: "test"})
		require.NoError(t, err)
		life, end := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = b.Run(life) })
		running.Go(func() { r.Run(life) })
		time.Sleep(5 * time.Minute) //nolint:forbidigo // the time of synctest
		end()
		running.Wait()
		require.Equal(t, []string{"0", "1", "2"}, ids)
		for _, age := range ages {
			require.Less(t, age, 20*time.Second, "the claim may have ended")
		}
		require.NoError(t, driver.Close(context.Background()))
	})
}
