package rabbitbus

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff counts failures in a row and says how long to pause. It is not safe for concurrent use.
type backoff struct {
	first, most time.Duration
	next        time.Duration
}

// pause returns the next pause: first, doubling up to most, with up to half taken off at random.
func (b *backoff) pause() time.Duration {
	if b.next < b.first {
		b.next = b.first
	}
	d := b.next
	b.next = min(b.most, 2*b.next)
	return d - rand.N(d/2+1) //nolint:gosec // spreads attempts, and keeps no secret
}

// reset starts over after a success.
func (b *backoff) reset() { b.next = 0 }

// sleep waits for the next pause, or until ctx ends.
func (b *backoff) sleep(ctx context.Context) error {
	t := time.NewTimer(b.pause())
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
