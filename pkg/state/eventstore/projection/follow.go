package projection

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// errLeft reports a version that is not to be followed any more. It is none of the event's failures.
var errLeft = fmt.Errorf("%w: the version is paused, dropped, or changed with each append by now", state.ErrUnavailable)

// follow has a version follow the log by a subscription. Its lease decides which process does.
func (s *Set) follow(d *Definition, v Version) error {
	if s.follows[v] != nil {
		return nil
	}
	s.log.RenewKeys() // the version may have been begun because somebody was erased elsewhere
	cfg := eventstore.SubscriptionConfig{Name: v.Subscription(), Category: d.Category, Lease: s.cfg.Lease, Poll: s.cfg.Poll, Batch: d.Batch}
	if s.engine.Transactional() && d.inTransaction() {
		cfg.HandleBatchIn = func(ctx context.Context, tx *sql.Tx, events []eventstore.Recorded) error {
			data, err := s.engine.Within(tx).Projection(ctx, v.Projection) // nobody changes that before the events are applied
			if err != nil {
				return err
			}
			return s.applied(ctx, d, Batch{Version: v, Tx: tx, Events: events}, data)
		}
	} else {
		cfg.HandleBatch = func(ctx context.Context, events []eventstore.Recorded) error {
			entries, err := s.engine.Projections(ctx, v.Projection)
			if err != nil {
				return err
			}
			return s.applied(ctx, d, Batch{Version: v, Events: events}, entries[v.Projection])
		}
	}
	sub, err := s.log.Subscribe(cfg)
	if err == nil {
		s.follows[v] = sub
	}
	return err
}

// applied applies events, if the entry says that they are to be.
func (s *Set) applied(ctx context.Context, d *Definition, b Batch, data []byte) error {
	e, err := decode(data)
	if err != nil {
		return err
	}
	if !e.follows(b.Version.Number, false) {
		s.hurry()
		return errLeft
	}
	return d.apply(ctx, b)
}

// attachNow has an inline version changed in each append, if it is near enough to the end.
func (s *Set) attachNow(d *Definition, v Version) error {
	return change(s.ctx, s.engine, v.Projection, func(w eventstore.Within, e *entry) error {
		current := e.find(v.Number)
		if current == nil || current.Attached || e.Paused || current.Phase == Dropping {
			return errUnchanged
		}
		return s.attach(s.ctx, w, d, v.Projection, current)
	})
}

// closeGap applies to an inline version what was appended by processes that do not have its definition, or while it was paused.
func (s *Set) closeGap(d *Definition, v Version) error {
	for more := true; more && s.ctx.Err() == nil; {
		behind, err := s.behind(d.Category, v)
		if err != nil || !behind {
			return err
		}
		err = change(s.ctx, s.engine, v.Projection, func(w eventstore.Within, e *entry) error {
			if more = e.follows(v.Number, true); !more {
				return errUnchanged
			}
			g, err := s.gapOf(s.ctx, w, d.Category, v, nearby)
			if err != nil {
				return err
			}
			more = g.more
			return g.close(s.ctx, w, d, v)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// behind reports whether a version misses events.
func (s *Set) behind(category string, v Version) (bool, error) {
	position, err := s.position(s.ctx, v)
	if err != nil {
		return false, err
	}
	events, _, err := s.engine.Read(s.ctx, eventstore.Range{Category: category, From: position + 1, Limit: 1})
	return len(events) > 0, err
}

// position is up to where events are in a version.
func (s *Set) position(ctx context.Context, v Version) (int64, error) {
	marks, err := s.engine.Marks(ctx, v.Subscription())
	if err != nil || len(marks) == 0 {
		return 0, err
	}
	return marks[0].Position, nil
}

// swapWhenReady makes a version the live one when it has caught up, unless it leaves events out, or is held back.
func (s *Set) swapWhenReady(category string, v Version) error {
	near, err := s.near(category, v)
	if err != nil || !near {
		return err
	}
	swapped := false
	err = change(s.ctx, s.engine, v.Projection, func(w eventstore.Within, e *entry) error {
		current := e.find(v.Number)
		if swapped = false; current == nil || current.Phase != Building || e.Paused {
			return errUnchanged
		}
		if current.Hold {
			current.Phase = Ready
			return nil
		}
		parked, err := w.Parked(s.ctx, v.Subscription())
		if err != nil || parked > 0 {
			return errors.Join(err, errUnchanged)
		}
		swapped = true
		return s.promote(s.ctx, w, v.Projection, e, current)
	})
	switch {
	case errors.Is(err, errBehind):
		s.soon = true // the follower's next step may be near enough
		return nil
	case err == nil && swapped:
		s.cfg.Logger.Info("a version has caught up, and is live", "projection", v.String())
		s.hurry()
	}
	return err
}

// near reports whether what a version is behind may be done in one step.
func (s *Set) near(category string, v Version) (bool, error) {
	position, err := s.position(s.ctx, v)
	if err != nil {
		return false, err
	}
	last, _, err := s.engine.Read(s.ctx, eventstore.Range{Category: category, Backward: true, Limit: 1})
	return len(last) == 0 || position > 0 && position+nearby >= last[0].Position, err
}
