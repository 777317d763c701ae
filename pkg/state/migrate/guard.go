package migrate

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

const (
	// lookEvery is how often a node reads the phase of a store that is in use.
	lookEvery = Lease / 5
	// lookClosing is how often it does while a change waits for the decision to move.
	lookClosing = 30 * time.Millisecond
)

// A view is a phase as a node knows it, and until when it may go by it.
type view struct {
	record
	from, to *side
	own      int64 // epoch in the record of the side that decides
	until    atomic.Pointer[time.Time]
	dirty    atomic.Bool // it is written down that changes were not carried: none needs to be noted any more
}

// held reports whether the node may still go by it. Both clocks are asked: the one stands still while a machine sleeps, the other may be
// set.
func (v *view) held(now time.Time) bool {
	until := *v.until.Load()
	return now.Before(until) && now.Round(0).Before(until.Round(0))
}

// decides is the side that does.
func (v *view) decides() *side {
	if v.Phase.old() {
		return v.from
	}
	return v.to
}

// other is the side that changes are carried to.
func (v *view) other() *side {
	if v.Phase.old() {
		return v.to
	}
	return v.from
}

// entitled returns why changes must not be carried any more.
func (v *view) entitled() error {
	if !v.held(time.Now()) {
		return errLate
	}
	return nil
}

var errLate = fmt.Errorf("%w: the phase of the store's migration has not been read for too long", state.ErrUnavailable)

// A guard knows where a store's decision is.
type guard struct {
	from, to *side
	looking  chan struct{} // held by the one that reads the phase
	view     atomic.Pointer[view]
}

// enter returns the view to go by, which is held. Changes wait while the decision moves.
func (g *guard) enter(ctx context.Context, changes bool) (*view, error) {
	for {
		now := time.Now()
		v := g.view.Load()
		held := v != nil && v.held(now)
		if held && (!v.Closing || !changes) && now.Add(Lease-lookEvery).Before(*v.until.Load()) {
			return v, nil
		}
		if held && (!v.Closing || !changes) { // it is time to look again, for one
			select {
			case g.looking <- struct{}{}:
			default:
				return v, nil
			}
			short, cancel := context.WithTimeout(ctx, Lease/8)
			err := g.look(short)
			cancel()
			<-g.looking
			if err != nil {
				return v, nil //nolint:nilerr // it is held still, and others look again
			}
			continue
		}
		select {
		case g.looking <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", state.ErrUnavailable, context.Cause(ctx))
		}
		var err error
		if g.view.Load() == v { // nobody has looked meanwhile
			err = g.look(ctx)
		}
		<-g.looking
		if err != nil {
			return nil, err
		}
		if v = g.view.Load(); v.Closing && changes {
			if !wait(ctx, lookClosing) {
				return nil, fmt.Errorf("%w: the store is being moved from %s to %s, and changes wait: %w", state.ErrUnavailable, v.decides().name, v.other().name, context.Cause(ctx))
			}
		}
	}
}

// confirm reports whether the view counted still at a moment. While the decision is about to move, the lease does not tell: it is looked
// once more, by one for all that wait.
func (g *guard) confirm(ctx context.Context, v *view, at time.Time) (bool, error) {
	if !v.held(at) {
		return false, nil
	}
	if !v.Closing {
		return true, nil
	}
	select {
	case g.looking <- struct{}{}:
	case <-ctx.Done():
		return false, fmt.Errorf("%w: %w", state.ErrUnavailable, context.Cause(ctx))
	}
	defer func() { <-g.looking }()
	if g.view.Load() == v && !v.until.Load().Add(-Lease).After(at) {
		if err := g.look(ctx); err != nil {
			return false, err
		}
	}
	return g.view.Load() == v, nil
}

// look reads the phase.
func (g *guard) look(ctx context.Context) error {
	begun := time.Now()
	until := begun.Add(Lease)
	v := g.view.Load()
	if v != nil && !v.Closing {
		r, _, err := v.decides().record(ctx)
		if err != nil {
			return unread(err)
		}
		if r.Epoch == v.own {
			v.until.Store(&until)
			return nil
		}
	}
	r, _, own, err := newest(ctx, g.from, g.to)
	if err != nil {
		return unread(err)
	}
	if v != nil && r.Epoch == v.Epoch && own == v.own {
		v.until.Store(&until)
		return nil
	}
	v = &view{record: r, from: g.from, to: g.to, own: own}
	v.until.Store(&until)
	g.view.Store(v)
	return nil
}

// unread says that nothing was done, whatever kept the phase from being read.
func unread(err error) error { return fmt.Errorf("%w: %w", state.ErrUnavailable, err) }
