package eventstore

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A process that was stopped while an event waits for its next attempt goes on when the lease is over, before a timer has told it. It does not begin the
// event again: another consumer may be further by then. Nor does it begin the next one, or one of a stream that was released.
func TestNoLateAttempt(t *testing.T) {
	begun := 0
	cfg := SubscriptionConfig{Name: "sub", Begin: func(context.Context, Recorded) func() error {
		begun++
		return func() error { return nil }
	}}
	require.NoError(t, cfg.complete())
	metrics, err := newSubscriptionMetrics(nil, cfg.Name)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, metrics.close()) })
	stopped := func() *part {
		p := &part{sub: &Subscription{store: New(nil, Config{}), cfg: cfg, metrics: metrics, stop: make(chan struct{})}, lease: Lease{Lives: time.Second}}
		p.begun = time.Now().Add(-2 * time.Second)
		p.ctx, p.cancel = context.WithCancelCause(t.Context())
		return p
	}
	l := newPipeline(stopped())
	l.failed = []*flight{{failure: state.ErrUnavailable}}
	require.ErrorIs(t, l.mend(), ErrLeaseLost)
	l = newPipeline(stopped())
	l.add(Recorded{Version: 1, Position: 1}, 1)
	require.ErrorIs(t, l.begin(), ErrLeaseLost)
	_, err = stopped().replayOne(Recorded{})
	require.ErrorIs(t, err, ErrLeaseLost)
	require.Zero(t, begun)
}
