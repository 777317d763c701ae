package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/services/egress"
	"github.com/bannou-mesh/bannou/services/messaging"
)

// BenchmarkOutboxDrain is how fast an outbox in SQLite empties into RabbitMQ, with a durable queue bound.
func BenchmarkOutboxDrain(b *testing.B) {
	for _, keys := range []int{0, 1, 64} {
		b.Run(strconv.Itoa(keys)+" keys", func(b *testing.B) { drain(b, keys, max(b.N, 2000)) })
	}
}

func drain(b *testing.B, keys, events int) {
	driver, err := rabbitbus.New(rabbitbus.Config{URLs: []string{servers.RabbitMQ(b).URL}})
	require.NoError(b, err)
	broker, err := bus.New(driver, bus.Config{})
	require.NoError(b, err)
	sub, err := broker.SubscribeRaw(b.Context(), "drained", func(context.Context, *bus.Received) error { return nil },
		bus.SubscriptionOptions{Group: "keep", Durable: true})
	require.NoError(b, err)
	require.NoError(b, sub.Close(b.Context()))
	sqlite, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(b.TempDir(), "state.db")})
	require.NoError(b, err)
	box, err := sqlite.OpenOutbox(b.Context(), state.OutboxConfig{Name: "box", MaxEntries: 1 << 30, MaxBytes: 1 << 40})
	require.NoError(b, err)
	fill(b, box, keys, events)
	policy, err := egress.New(egress.Config{})
	require.NoError(b, err)
	service, err := messaging.New(messaging.Config{Bus: broker, Policy: policy, Outbox: box})
	require.NoError(b, err)

	b.ResetTimer()
	require.NoError(b, service.Start(b.Context()))
	for depth := 1.0; depth > 0; depth = service.Figures()["outboxDepth"] {
		select {
		case <-b.Context().Done():
			b.Fatal("it did not end")
		case <-time.After(time.Millisecond):
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.Context()), 10*time.Second)
	defer cancel()
	require.NoError(b, service.Stop(ctx))
	require.NoError(b, broker.Close(ctx))
	require.NoError(b, driver.Close(ctx))
	require.NoError(b, sqlite.Close())
}

func fill(b *testing.B, box state.Outbox, keys, events int) {
	var entries []state.OutboxEntry
	for i := range events {
		id := uuid.NewString()
		e := state.OutboxEntry{
			Topic: "drained", Properties: fmt.Appendf(nil, `{"messageId":%q,"contentType":"application/json"}`, id),
			Body: fmt.Appendf(nil, `{"eventId":%q,"timestamp":"2006-01-02T15:04:05Z","n":%d,"pad":"%01000d"}`, id, i, 0),
		}
		if keys > 0 {
			e.Key = strconv.Itoa(i % keys)
		}
		entries = append(entries, e)
	}
	require.NoError(b, box.Enqueue(b.Context(), entries...))
}
