package projection

import (
	"context"
	"errors"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// Rebuild begins a version beside the live one, of the highest revision that was ever defined, and returns before it is built. With hold it is not
// made live when it has caught up, but waits for Swap. Where a version is being built already, or waits, that is the one; without hold it waits
// no longer. But where a subject was erased since that was begun, it is dropped, because it may have something of the subject. state.ErrNotFound: nobody has
// defined the projection.
func (s *Set) Rebuild(ctx context.Context, name string, hold bool) (Version, error) {
	number := 0
	err := s.command(ctx, name, "rebuild", func(w eventstore.Within, e *entry) error {
		erased, err := w.Destroyed(ctx)
		if err != nil {
			return err
		}
		for i := range e.Versions {
			v := &e.Versions[i]
			if v.Phase != Building && v.Phase != Ready {
				continue
			}
			if v.Erased < erased {
				v.Phase = Dropping
				continue
			}
			if number = v.Number; v.Hold && !hold {
				v.Hold, v.Phase = false, Building
			}
			return nil
		}
		begun := e.begin(Building, hold, erased)
		number = begun.Number
		last, _, err := w.Read(ctx, eventstore.Range{Category: begun.Shape.Category, Backward: true, Limit: 1})
		if len(last) > 0 {
			begun.Head = last[0].Position
		}
		return err
	})
	return Version{name, number}, err
}

// Swap makes a version the live one, in one step: one that was built and held back, or one that was live before. state.ErrConflict: it is behind
// the live one, which is as far as readers have seen. state.ErrNotFound: there is no such version.
func (s *Set) Swap(ctx context.Context, name string, number int) error {
	return s.command(ctx, name, "swap", func(w eventstore.Within, e *entry) error {
		v := e.find(number)
		switch {
		case v == nil || v.Phase == Dropping:
			return noVersion(number)
		case number == e.Live:
			return errUnchanged
		}
		err := s.promote(ctx, w, name, e, v)
		if errors.Is(err, errBehind) {
			err = fmt.Errorf("%w: version %d has not caught up with the live one; wait until it has, or resume it", state.ErrConflict, number)
		}
		return err
	})
}

// Pause has no version of the projection changed any more. What is being applied is waited for, where that is in tables of the log's database.
// Readers have what there is. An inline projection is left behind by appends, and catches up when it is resumed.
func (s *Set) Pause(ctx context.Context, name string) error { return s.setPaused(ctx, name, true) }

// Resume ends a pause: versions go on where they were.
func (s *Set) Resume(ctx context.Context, name string) error { return s.setPaused(ctx, name, false) }

func (s *Set) setPaused(ctx context.Context, name string, paused bool) error {
	what := "resume"
	if paused {
		what = "pause"
	}
	return s.command(ctx, name, what, func(_ eventstore.Within, e *entry) error {
		e.Paused = paused
		return nil
	})
}

// Drop removes a version that is not live, with all its data; one that is being built too. It returns before that is done: the version is Dropping
// until a process that can has done it. state.ErrConflict: it is the live one. state.ErrNotFound: there is no such version.
func (s *Set) Drop(ctx context.Context, name string, number int) error {
	return s.command(ctx, name, "drop", func(_ eventstore.Within, e *entry) error {
		v := e.find(number)
		switch {
		case v == nil:
			return noVersion(number)
		case number == e.Live:
			return fmt.Errorf("%w: version %d is the live one; swap to another one first", state.ErrConflict, number)
		}
		v.Phase = Dropping
		return nil
	})
}

func noVersion(number int) error {
	return fmt.Errorf("%w: there is no version %d", state.ErrNotFound, number)
}

// command changes an entry that is there.
func (s *Set) command(ctx context.Context, name, what string, fn func(w eventstore.Within, e *entry) error) error {
	defer s.hurry()
	err := change(ctx, s.engine, name, func(w eventstore.Within, e *entry) error {
		if e.Last == 0 {
			return errNone
		}
		return fn(w, e)
	})
	if err != nil {
		return fmt.Errorf("projection %q: %s: %w", name, what, err)
	}
	return nil
}
