package sqlstate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// How much one transaction takes, and how long it may take where one of its callers names no time.
const (
	gatherCalls = 512
	gatherBytes = 4 << 20
	gatherTime  = 30 * time.Second
)

// A Gathering has callers who write at the same time share one transaction, and so one write to the disk: while as many
// are under way as there are lanes, those who come gather for the next. A caller who finds a lane free waits for nobody,
// and is served on its own goroutine. It is safe for concurrent use.
type Gathering[C any] struct {
	// Alone makes what one caller asks for, within the caller's context.
	Alone func(ctx context.Context, call *Call[C]) error

	// Together makes what several callers ask for, as if one came after the other, in one transaction. It notes in the Err
	// of a call that this one was refused. What it returns is for all; unless that is ErrOutcomeUnknown, nothing was changed.
	Together func(ctx context.Context, calls []*Call[C]) error

	// Lanes is how many transactions may be under way at once.
	Lanes int

	// Workers own the goroutines that serve those who gathered.
	Workers *Workers

	mu      sync.Mutex
	waiting []*Call[C] // empty unless all lanes are taken
	taken   int        // lanes
}

// A Call is what one caller asks for. The Ask also takes the answer; it must not share memory with its caller, who may
// be gone by then.
type Call[C any] struct {
	Ask C
	Err error

	ctx   context.Context //nolint:containedctx // the caller's, who waits elsewhere
	size  int64
	phase phase         // guarded by the gathering's lock
	done  chan struct{} // closed when Ask and Err are final
}

type phase uint8

const (
	waits  phase = iota // it is in no transaction
	shares              // it is in one with others, which does not end with its caller's context
	alone               // it is in one of its own, which does
)

// Do makes what is asked for, and returns it with the answer when that is on disk, or when the context ends.
// ErrOutcomeUnknown: the context ended while it was in a transaction with others. Size is in bytes.
func (g *Gathering[C]) Do(ctx context.Context, ask C, size int64) (C, error) {
	if err := ctx.Err(); err != nil {
		return ask, err
	}
	call := &Call[C]{Ask: ask, ctx: ctx, size: size}
	if g.enter(call) {
		defer g.leave()
		if err := g.Alone(ctx, call); err != nil {
			return ask, err
		}
		return call.Ask, call.Err
	}
	select {
	case <-call.done:
		return call.Ask, call.Err
	case <-ctx.Done():
	}
	if err, over := g.abandon(call); over {
		return ask, err
	}
	<-call.done // soon: its transaction ends with the same context
	return call.Ask, call.Err
}

// enter takes a free lane, or else has the call wait.
func (g *Gathering[C]) enter(call *Call[C]) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.taken < g.Lanes {
		g.taken++
		return true
	}
	call.done = make(chan struct{})
	g.waiting = append(g.waiting, call)
	return false
}

// leave gives a lane to those who wait, or back.
func (g *Gathering[C]) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) > 0 && g.Workers.start(g.work) {
		return
	}
	g.taken--
	g.refuse()
}

// refuse is for those who still wait when the driver is closed.
func (g *Gathering[C]) refuse() {
	for _, call := range g.waiting {
		call.Err = errClosed
		close(call.done)
	}
	g.waiting = nil
}

// abandon says what a caller is told who cannot wait any longer, and whether that is final.
func (g *Gathering[C]) abandon(call *Call[C]) (err error, over bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-call.done:
		return nil, false
	default:
	}
	switch call.phase {
	case alone:
		return nil, false
	case shares:
		return fmt.Errorf("%w: %w", state.ErrOutcomeUnknown, call.ctx.Err()), true
	default:
		return gaveUp(call.ctx), true
	}
}

// gaveUp is for a caller whose context ended before anything was done.
func gaveUp(ctx context.Context) error {
	err := ctx.Err()
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: it was not its turn in time: %w", state.ErrUnavailable, err)
}

// work serves on one lane until nobody waits any more.
func (g *Gathering[C]) work() {
	for calls := g.next(); len(calls) > 0; calls = g.next() {
		if len(calls) == 1 {
			g.single(calls[0])
		} else {
			g.together(calls)
		}
	}
}

// finish tells the callers. With the lock held, so that who abandons a call sees it either under way or done.
func (g *Gathering[C]) finish(calls ...*Call[C]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, call := range calls {
		close(call.done)
	}
}

// next takes the calls of the next transaction, in the order in which they came. None: the lane is free again.
func (g *Gathering[C]) next() []*Call[C] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.Workers.closed() {
		g.refuse()
	}
	var calls []*Call[C]
	size := int64(0)
	for len(g.waiting) > 0 && len(calls) < gatherCalls {
		call := g.waiting[0]
		if call.ctx.Err() == nil {
			if size += call.size; len(calls) > 0 && size > gatherBytes {
				break
			}
			call.phase = shares
			calls = append(calls, call)
		}
		g.waiting = g.waiting[1:]
	}
	switch len(calls) {
	case 0:
		g.waiting = nil
		g.taken--
	case 1:
		calls[0].phase = alone
	}
	return calls
}

// single serves one call, unless its caller has gone.
func (g *Gathering[C]) single(call *Call[C]) {
	g.mu.Lock()
	call.phase = alone
	g.mu.Unlock()
	if call.ctx.Err() != nil {
		call.Err = gaveUp(call.ctx)
	} else if err := g.Alone(call.ctx, call); err != nil {
		call.Err = err
	}
	g.finish(call)
}

// together serves several calls. What cannot be done in one transaction is tried one by one, so that nobody fails for a
// neighbour's sake, whose value is too large, or is none to the engine. Each is told as soon as its own call is over.
func (g *Gathering[C]) together(calls []*Call[C]) {
	ctx, cancel := g.until(calls)
	err := g.Together(ctx, calls)
	cancel()
	switch {
	case err == nil:
		g.finish(calls...)
	case errors.Is(err, state.ErrOutcomeUnknown):
		for _, call := range calls {
			call.Err = err
		}
		g.finish(calls...)
	default:
		g.oneByOne(calls)
	}
}

// tries is how many calls in a row must find the engine away before the others are told so unheard.
const tries = 2

func (g *Gathering[C]) oneByOne(calls []*Call[C]) {
	g.mu.Lock()
	for _, call := range calls {
		call.phase = waits
	}
	g.mu.Unlock()
	away := 0
	for i, call := range calls {
		if away == tries {
			call.Err = calls[i-1].Err
			g.finish(call)
			continue
		}
		call.Err = nil
		g.single(call)
		away++
		if call.ctx.Err() != nil || !errors.Is(call.Err, state.ErrUnavailable) {
			away = 0
		}
	}
}

// until is a context for a transaction of several callers. It lasts as long as one of them may wait: who cannot wait
// so long leaves alone, and takes nobody along.
func (g *Gathering[C]) until(calls []*Call[C]) (context.Context, context.CancelFunc) {
	var last time.Time
	most := time.Now().Add(gatherTime)
	for _, call := range calls {
		deadline, bounded := call.ctx.Deadline()
		if !bounded || deadline.After(most) {
			deadline = most
		}
		if deadline.After(last) {
			last = deadline
		}
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(calls[0].ctx), last)
	stop := context.AfterFunc(g.Workers.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}
