package sagas_test

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/sagas"
)

// A start whose handler fails waits in the instance, and a person can have it tried again.
func TestRetryOfAStartThatFailed(t *testing.T) {
	w := newWorld(t)
	d := orders()
	var fails atomic.Bool
	fails.Store(true)
	d.Start[0] = sagas.When(ofOrder("order.placed"), "reserving", func(o *Order, e *OrderEvent) error {
		if fails.Load() {
			return errors.New("not yet")
		}
		o.ID, o.Amount = e.Order, e.Amount
		return nil
	})
	r := w.start(true, built(t, d))
	r.publish(t, "order.placed", "o-1")
	r.becomes(t, "o-1", sagas.Parked)
	fails.Store(false)
	i, err := r.Retry(t.Context(), "order", "o-1", sagas.Request{})
	require.NoError(t, err)
	require.Equal(t, sagas.Running, i.Status)
	require.Equal(t, "reserving", i.State)
	require.Empty(t, i.Kept)
}
