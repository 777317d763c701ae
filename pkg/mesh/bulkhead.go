package mesh

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Bulkhead bounds the calls of a target that are under way, from their beginning to the end of the response's body, so
// that a slow target does not take everything its callers have. The zero value bounds nothing: what is too much for a
// target, its callers cannot know.
type Bulkhead struct {
	// MaxInFlight is how many calls may be under way at once. Default: any number.
	MaxInFlight int
	// MaxWaiting is how many more may wait for their turn, first come first served. Default: none.
	MaxWaiting int
	// MaxWait bounds the wait, as the call's deadline does. Default: nothing else.
	MaxWait time.Duration
}

func (b Bulkhead) validate() error {
	switch {
	case b.MaxInFlight < 0 || b.MaxWaiting < 0 || b.MaxWait < 0:
		return fmt.Errorf("mesh: bulkhead of %d in flight, %d waiting for %v: choose 0 or more", b.MaxInFlight, b.MaxWaiting, b.MaxWait)
	case b.MaxInFlight == 0 && (b.MaxWaiting > 0 || b.MaxWait > 0):
		return fmt.Errorf("mesh: bulkhead with %d waiting for %v: say how many may be in flight", b.MaxWaiting, b.MaxWait)
	default:
		return nil
	}
}

// An OverloadedError is a call that was not made because as many as may be are under way. errors.Is(err, ErrOverloaded)
// holds.
type OverloadedError struct {
	Target   string        // the app-id
	InFlight int           // calls under way
	Waiting  int           // and those that wait
	Waited   time.Duration // what this one did in vain; 0: the line was full
}

// Error says which target, and what is under way there.
func (e *OverloadedError) Error() string {
	text := fmt.Sprintf("%v: %d calls of %q are under way, %d wait", ErrOverloaded, e.InFlight, e.Target, e.Waiting)
	if e.Waited > 0 {
		text += fmt.Sprintf("; none ended within %v", e.Waited)
	}
	return text
}

// Is reports whether target is ErrOverloaded.
func (e *OverloadedError) Is(target error) bool { return target == ErrOverloaded }

// A bulkhead is a Bulkhead at work. A nil one bounds nothing.
type bulkhead struct {
	Bulkhead
	target string

	mu       sync.Mutex
	inFlight int
	line     list.List // of chan struct{}, closed when it is the turn
	refused  uint64
}

func newBulkhead(b Bulkhead, target string) *bulkhead {
	if b.MaxInFlight == 0 {
		return nil
	}
	return &bulkhead{Bulkhead: b, target: target}
}

// enter waits for its turn; leave follows once. Errors are an *OverloadedError, joined with the context's where its
// deadline ended the wait, or the context's alone.
func (b *bulkhead) enter(ctx context.Context) error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	if b.inFlight < b.MaxInFlight {
		b.inFlight++
		b.mu.Unlock()
		return nil
	}
	if b.line.Len() >= b.MaxWaiting {
		defer b.mu.Unlock()
		return b.refuse(0)
	}
	turn := make(chan struct{})
	place := b.line.PushBack(turn)
	b.mu.Unlock()
	return b.wait(ctx, turn, place)
}

func (b *bulkhead) wait(ctx context.Context, turn <-chan struct{}, place *list.Element) error {
	begin := time.Now()
	var tooLong <-chan time.Time
	if b.MaxWait > 0 {
		timer := time.NewTimer(b.MaxWait)
		defer timer.Stop()
		tooLong = timer.C
	}
	var err error
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-tooLong:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-turn: // just now
		if err == nil {
			return nil
		}
		b.next()
		return err
	default:
	}
	b.line.Remove(place)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return errors.Join(b.refuse(time.Since(begin)), err)
}

// refuse makes the error, with the lock held.
func (b *bulkhead) refuse(waited time.Duration) error {
	b.refused++
	return &OverloadedError{Target: b.target, InFlight: b.inFlight, Waiting: b.line.Len(), Waited: waited}
}

func (b *bulkhead) leave() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next()
}

// next hands a place on, with the lock held.
func (b *bulkhead) next() {
	first := b.line.Front()
	if first == nil {
		b.inFlight--
		return
	}
	close(b.line.Remove(first).(chan struct{}))
}

// counts returns what is under way and waits, and how many were refused.
func (b *bulkhead) counts() (inFlight, waiting int, refused uint64) {
	if b == nil {
		return 0, 0, 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.inFlight, b.line.Len(), b.refused
}

// sendInTurn sends to an instance when the target's bulkhead lets the call in.
func (c *Client) sendInTurn(req *http.Request, r route) (resp *http.Response, retries int, err error) {
	b := r.pool.bulkhead
	if b == nil {
		return c.sendToOne(req, r)
	}
	if err := b.enter(req.Context()); err != nil {
		closeBody(req)
		return nil, 0, err
	}
	leave := sync.OnceFunc(b.leave)
	if resp, retries, err = c.sendToOne(req, r); err != nil {
		leave()
		return nil, retries, err
	}
	endWithBody(resp, leave)
	return resp, retries, nil
}
