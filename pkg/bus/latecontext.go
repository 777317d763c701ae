package bus

import (
	"context"
	"sync"
	"time"
)

// lateContext is a context that ends with its parent, at a deadline, or when it is ended, and that costs nothing until
// somebody waits for that: only Done makes the context behind it. Most handlers and most publishes in memory never ask.
type lateContext struct {
	parent   context.Context //nolint:containedctx // it is a context
	deadline time.Time       // zero: none of its own

	mu     sync.Mutex
	inner  context.Context //nolint:containedctx // nil until Done is called
	cancel context.CancelFunc
	ended  bool
}

var _ context.Context = (*lateContext)(nil)

// Deadline is its own or the parent's, whichever comes first.
func (c *lateContext) Deadline() (time.Time, bool) {
	outer, bounded := c.parent.Deadline()
	if c.deadline.IsZero() || bounded && outer.Before(c.deadline) {
		return outer, bounded
	}
	return c.deadline, true
}

// Done makes the context behind it.
func (c *lateContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		if c.deadline.IsZero() {
			c.inner, c.cancel = context.WithCancel(c.parent)
		} else {
			c.inner, c.cancel = context.WithDeadline(c.parent, c.deadline)
		}
		if c.ended {
			c.cancel()
		}
	}
	return c.inner.Done()
}

// Err tells why it has ended, if it has.
func (c *lateContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.inner != nil:
		return c.inner.Err()
	case c.ended:
		return context.Canceled
	case c.parent.Err() != nil:
		return c.parent.Err()
	case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// Value is the parent's. Asked by package context itself, the one behind answers, so that contexts made from this one
// need no goroutine to follow it.
func (c *lateContext) Value(key any) any {
	c.mu.Lock()
	inner := c.inner
	c.mu.Unlock()
	if inner != nil {
		return inner.Value(key)
	}
	return c.parent.Value(key)
}

// end ends it.
func (c *lateContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
}
