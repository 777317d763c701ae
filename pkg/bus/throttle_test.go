package bus_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
)

// A burst is handled at the rate that was asked for, retries included; closing does not wait for the queue.
func TestMaxPerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := memorybus.New(memorybus.Config{})
		defer func() { require.NoError(t, d.Close(context.Background())) }()
		b := start(t, d, bus.Config{})
		handled := make(chan time.Time, 100)
		require.NoError(t, b.HandleRaw("a.b", "slow", func(context.Context, *bus.Received) error {
			handled <- time.Now()
			return nil
		}, bus.SubscriptionOptions{MaxPerSecond: 4}))
		run(t, b)
		for range 20 {
			_, err := b.PublishRaw(t.Context(), "a.b", []byte(`{}`), bus.PublishOptions{})
			require.NoError(t, err)
		}
		begin := time.Now()
		for i := range 8 {
			require.Equal(t, time.Duration(i)*250*time.Millisecond, (<-handled).Sub(begin))
		}
		begin = time.Now()
		require.NoError(t, b.Close(t.Context()))
		require.Zero(t, time.Since(begin), "closing waits for none of them")
		b = start(t, d, bus.Config{})
		require.ErrorIs(t, b.HandleRaw("a.b", "never", nil, bus.SubscriptionOptions{MaxPerSecond: -1}), bus.ErrInvalid)
	})
}
