package sqlstate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// How much one transaction adds, and how long it may take where its callers name no time.
const (
	gatherCalls = 512
	gatherBytes = 4 << 20
	gatherTime  = 30 * time.Second
)

// A gathering has callers who add at the same time share one transaction, and so one write to the disk: while one is under
// way, those who come gather for the next. A caller who comes alone waits for nobody.
type gathering struct {
	// add makes the additions in one transaction, and says in their err which of them it refused.
	add func(ctx context.Context, calls []*addition) error

	mu      sync.Mutex
	waiting []*addition
	busy    bool // a goroutine is at work; it ends when nobody waits any more
}

// An addition is what one caller adds.
type addition struct {
	ctx     context.Context //nolint:containedctx // the caller's, who waits elsewhere
	entries []state.OutboxEntry
	size    int64
	begun   bool          // it is in a transaction; guarded by the gathering's lock
	err     error         // set before done is closed
	done    chan struct{} // closed when it is over
}

// do adds, and returns when that is on disk, or when the caller's context ends. ErrOutcomeUnknown: it ended meanwhile.
func (g *gathering) do(a *addition) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	a.done = make(chan struct{})
	g.mu.Lock()
	g.waiting = append(g.waiting, a)
	if !g.busy {
		g.busy = true
		go g.work()
	}
	g.mu.Unlock()
	select {
	case <-a.done:
		return a.err
	case <-a.ctx.Done():
		return g.abandoned(a)
	}
}

// abandoned is what a caller is told who cannot wait any longer.
func (g *gathering) abandoned(a *addition) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-a.done:
		return a.err
	default:
	}
	switch err := a.ctx.Err(); {
	case a.begun:
		return fmt.Errorf("%w: %w", state.ErrOutcomeUnknown, err)
	case errors.Is(err, context.Canceled):
		return err
	default:
		return fmt.Errorf("%w: it was not the event's turn in time: %w", state.ErrUnavailable, err)
	}
}

func (g *gathering) work() {
	for calls := g.next(); len(calls) > 0; calls = g.next() {
		g.together(calls)
		for _, a := range calls {
			close(a.done)
		}
	}
}

// next takes the calls of the next transaction, in the order in which they came. None: the goroutine ends.
func (g *gathering) next() []*addition {
	g.mu.Lock()
	defer g.mu.Unlock()
	var calls []*addition
	size := int64(0)
	for len(g.waiting) > 0 && len(calls) < gatherCalls {
		a := g.waiting[0]
		if a.ctx.Err() == nil {
			if size += a.size; len(calls) > 0 && size > gatherBytes {
				break
			}
			a.begun = true
			calls = append(calls, a)
		}
		g.waiting = g.waiting[1:]
	}
	if g.busy = len(calls) > 0; !g.busy {
		g.waiting = nil
	}
	return calls
}

// together adds what several callers gave. What cannot be added in one transaction is tried one by one, so that nobody
// fails for a neighbour's sake: one whose event is too large, or whose time ends first.
func (g *gathering) together(calls []*addition) {
	err := g.transact(calls)
	if err != nil && len(calls) > 1 && !errors.Is(err, state.ErrOutcomeUnknown) {
		for _, a := range calls {
			if a.err = a.ctx.Err(); a.err == nil {
				a.fail(g.transact([]*addition{a}))
			}
		}
		return
	}
	for _, a := range calls {
		a.fail(err)
	}
}

// fail notes an error of the transaction. One of the addition itself, which the transaction did without, stays.
func (a *addition) fail(err error) {
	if err != nil {
		a.err = err
	}
}

// transact ends by the first of the callers' deadlines, so that each learns for certain what became of its events.
func (g *gathering) transact(calls []*addition) error {
	deadline := time.Now().Add(gatherTime)
	for _, a := range calls {
		if d, bounded := a.ctx.Deadline(); bounded && d.Before(deadline) {
			deadline = d
		}
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(calls[0].ctx), deadline)
	defer cancel()
	return g.add(ctx, calls)
}
