package bus

import (
	"context"
	"sync"
	"time"
)

// throttle spaces the calls of a subscription's handler evenly.
type throttle struct {
	interval time.Duration

	mu   sync.Mutex
	next time.Time // when the next call may begin
}

// newThrottle is nil, no limit, without one.
func newThrottle(perSecond float64) *throttle {
	if perSecond <= 0 {
		return nil
	}
	return &throttle{interval: time.Duration(float64(time.Second) / perSecond)}
}

// turn waits for a call's time. It reports false when ctx ended first.
func (t *throttle) turn(ctx context.Context) bool {
	t.mu.Lock()
	now := time.Now()
	at := t.next
	if at.Before(now) {
		at = now
	}
	t.next = at.Add(t.interval)
	t.mu.Unlock()
	return at.Equal(now) || wait(ctx, at.Sub(now))
}

// throttled keeps to the subscription's MaxPerSecond. What waits for its time when the subscription ends goes back.
func throttled(next handler) handler {
	return func(ctx context.Context, w *work) error {
		if t := w.source.throttle; t != nil && !t.turn(w.source.flow) { //nolint:contextcheck // it ends before the handler's does
			return &requeueError{ErrClosed}
		}
		return next(ctx, w)
	}
}
