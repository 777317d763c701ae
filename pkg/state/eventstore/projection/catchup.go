package projection

import (
	"context"
	"errors"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// nearby is how many events at most are applied in a step that others wait for.
const nearby = 500

// manyAppends is more than those append who share a step.
const manyAppends = 20_000

// errBehind reports a version that is too far behind for one step.
var errBehind = errors.New("it is too far behind to catch up in one step")

// A gap is what a version is behind, or the beginning of that.
type gap struct {
	position int64 // of the version
	begun    bool  // the version has a position
	events   []eventstore.Recorded
	more     bool // there are more events
}

// gapOf reads up to so many events that are missing in a version, within a step.
func (s *Set) gapOf(ctx context.Context, w eventstore.Within, category string, v Version, most int) (g gap, err error) {
	if g.position, g.begun, err = w.Position(ctx, v.Subscription()); err != nil {
		return g, err
	}
	r := eventstore.Range{Category: category, From: g.position + 1, Limit: most + 1}
	for more := true; more && r.Limit > 0; {
		var events []eventstore.Recorded
		if events, more, err = w.Read(ctx, r); err != nil {
			return g, err
		}
		if err := s.log.Reveal(ctx, events); err != nil {
			return g, err
		}
		if len(events) == 0 {
			break
		}
		g.events = append(g.events, events...)
		r.From, r.Limit = events[len(events)-1].Position+1, r.Limit-len(events)
	}
	if g.more = len(g.events) > most; g.more {
		g.events = g.events[:most]
	}
	return g, nil
}

// close applies the events. Who follows the version by a lease loses that.
func (g *gap) close(ctx context.Context, w eventstore.Within, d *Definition, v Version) error {
	position := g.position
	switch {
	case len(g.events) > 0:
		position = g.events[len(g.events)-1].Position
		if err := d.apply(ctx, Batch{Version: v, Tx: w.Tx(), Events: g.events}); err != nil {
			return fmt.Errorf("projection %s, positions %d to %d: %w", v, g.events[0].Position, position, err)
		}
	case g.begun:
		return nil
	}
	return w.Seize(ctx, v.Subscription(), position)
}

// catchUp closes a gap of up to so many events, or none with errBehind.
func (s *Set) catchUp(ctx context.Context, w eventstore.Within, d *Definition, v Version, most int) error {
	g, err := s.gapOf(ctx, w, d.Category, v, most)
	switch {
	case err != nil:
		return err
	case g.more:
		return errBehind
	}
	return g.close(ctx, w, d, v)
}

// errParked reports a version that cannot be inline, because it leaves events out.
var errParked = fmt.Errorf("%w: streams of it are parked: release them first", state.ErrConflict)

// inline changes the projections that are inline, within an append.
func (s *Set) inline(ctx context.Context, w eventstore.Within) error {
	for _, name := range s.inlines {
		data, err := w.Projection(ctx, name)
		if err != nil {
			return err
		}
		e, err := decode(data)
		if err != nil {
			return err
		}
		for _, v := range e.Versions {
			d := s.definitions[name][v.Shape.Revision]
			if d == nil || !e.follows(v.Number, true) {
				continue
			}
			err := s.catchUp(ctx, w, d, Version{name, v.Number}, manyAppends)
			if err != nil && !errors.Is(err, errBehind) { // after a pause it catches up by itself
				return err
			}
		}
	}
	return nil
}

// attach has an inline version changed in each append from now on. It has to be caught up, up to what can be done in this step.
func (s *Set) attach(ctx context.Context, w eventstore.Within, d *Definition, name string, v *version) error {
	parked, err := w.Parked(ctx, Version{name, v.Number}.Subscription())
	if err != nil {
		return err
	}
	if parked > 0 {
		return errParked
	}
	most := nearby
	if w.Tx() == nil { // what its follower does now is not undone when it loses its lease
		most = 0
	}
	if err := s.catchUp(ctx, w, d, Version{name, v.Number}, most); err != nil {
		return err
	}
	v.Attached = true
	return nil
}

// promote makes a version the live one, if it is as far as that.
func (s *Set) promote(ctx context.Context, w eventstore.Within, name string, e *entry, v *version) error {
	d := s.definitions[name][v.Shape.Revision]
	to := Version{name, v.Number}
	live, _, err := w.Position(ctx, Version{name, e.Live}.Subscription())
	if err != nil {
		return err
	}
	position, _, err := w.Position(ctx, to.Subscription())
	if err != nil {
		return err
	}
	switch {
	case v.Shape.Inline && !v.Attached && d != nil:
		err = s.attach(ctx, w, d, name, v)
	case v.Shape.Inline && !v.Attached:
		err = fmt.Errorf("%w: only a process that has the definition can make an inline version live", state.ErrUnsupported)
	case position >= live:
	case d != nil && (v.Attached || d.inTransaction() && w.Tx() != nil):
		err = s.catchUp(ctx, w, d, to, nearby)
	default:
		err = errBehind
	}
	if err != nil {
		return err
	}
	if before := e.find(e.Live); before != nil {
		before.Phase = Standby
	}
	e.Live, v.Phase, v.Hold = v.Number, Live, false
	return nil
}
