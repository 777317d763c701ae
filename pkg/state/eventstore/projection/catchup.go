package projection

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// nearby is how many events at most are applied in a step that others wait for.
const nearby = 500

// manyAppends is more than those append who share a step.
const manyAppends = 20_000

// Events are read in pages, until those of a gap have more than gapBytes of data: more are not held at once, whatever one append has.
const (
	gapPage  = 500
	gapBytes = 4 << 20
)

// errBehind reports a version that is too far behind for one step.
var errBehind = errors.New("it is too far behind to catch up in one step")

// A gap is what a version is behind, or the beginning of that.
type gap struct {
	position int64 // of the version
	begun    bool  // the version has a position
	events   []eventstore.Recorded
	more     bool // there are more events
	cut      bool // and they are left for the next gap, because these have gapBytes
}

// gapOf reads up to so many events that are missing in a version, or up to gapBytes of them, within a step.
func (s *Set) gapOf(ctx context.Context, w eventstore.Within, category string, v Version, most int) (g gap, err error) {
	if g.position, g.begun, err = w.Position(ctx, v.Subscription()); err != nil {
		return g, err
	}
	size := 0
	for events, err := range pagesOf(ctx, w, category, g.position, most+1) {
		if err == nil {
			err = s.log.Reveal(ctx, w, events)
		}
		if err != nil {
			return g, err
		}
		for i := range events {
			if g.cut = size > gapBytes; g.cut || len(g.events) == most {
				g.more = true
				return g, nil
			}
			size += len(events[i].Data)
			g.events = append(g.events, events[i])
		}
	}
	return g, nil
}

// pagesOf reads up to so many events of a category that are behind a position.
func pagesOf(ctx context.Context, w eventstore.Within, category string, behind int64, most int) iter.Seq2[[]eventstore.Recorded, error] {
	return func(yield func([]eventstore.Recorded, error) bool) {
		for more := true; more && most > 0; {
			var events []eventstore.Recorded
			var err error
			if events, more, err = w.Read(ctx, eventstore.Range{Category: category, From: behind + 1, Limit: min(most, gapPage)}); err != nil {
				yield(nil, err)
				return
			}
			if len(events) == 0 || !yield(events, nil) {
				return
			}
			behind, most = events[len(events)-1].Position, most-len(events)
		}
	}
}

// ends reports whether there are no more than so many events behind those of a gap.
func (g *gap) ends(ctx context.Context, w eventstore.Within, category string, most int) (bool, error) {
	for events, err := range pagesOf(ctx, w, category, g.events[len(g.events)-1].Position, most+1) {
		if err != nil {
			return false, err
		}
		most -= len(events)
	}
	return most >= 0, nil
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

// catchUp closes a gap of up to so many events, or none with errBehind. What has many bytes is applied in several batches.
func (s *Set) catchUp(ctx context.Context, w eventstore.Within, d *Definition, v Version, most int) error {
	g, err := s.gapOf(ctx, w, d.Category, v, most)
	if err != nil {
		return err
	}
	near := !g.more
	if g.cut {
		if near, err = g.ends(ctx, w, d.Category, most-len(g.events)); err != nil {
			return err
		}
	}
	if !near {
		return errBehind
	}
	for {
		if err := g.close(ctx, w, d, v); err != nil || !g.more {
			return err
		}
		if g, err = s.gapOf(ctx, w, d.Category, v, most); err != nil {
			return err
		}
	}
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
