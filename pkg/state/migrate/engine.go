package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// An engine is a store that is kept in two places. It asks the one that decides.
type engine struct {
	store  string
	guard  *guard
	follow *follower
}

var _ state.Scanner = (*engine)(nil)

// Get implements state.Engine.
func (e *engine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	return read(ctx, e, func(decides state.Scanner) ([]state.Record, error) { return decides.Get(ctx, keys) })
}

// Exists implements state.Engine.
func (e *engine) Exists(ctx context.Context, keys []string) ([]bool, error) {
	return read(ctx, e, func(decides state.Scanner) ([]bool, error) { return decides.Exists(ctx, keys) })
}

// Len implements state.Engine.
func (e *engine) Len(ctx context.Context) (int64, error) {
	return read(ctx, e, func(decides state.Scanner) (int64, error) { return decides.Len(ctx) })
}

// Scan implements state.Scanner. A walk does not outlive the phase it began in.
func (e *engine) Scan(ctx context.Context, cursor string, limit int) (keys []string, next string, err error) {
	next, err = read(ctx, e, func(decides state.Scanner) (next string, err error) {
		keys, next, err = decides.Scan(ctx, cursor, limit)
		return next, err
	})
	return keys, next, err
}

// read asks the side that decides, again if that may have been another when it answered.
func read[T any](ctx context.Context, e *engine, ask func(decides state.Scanner) (T, error)) (T, error) {
	for {
		v, err := e.guard.enter(ctx, false)
		if err != nil {
			var none T
			return none, e.error(err)
		}
		answer, err := ask(v.decides().engine)
		if err != nil {
			return answer, err
		}
		counts, err := e.guard.confirm(ctx, v, time.Now())
		if err != nil {
			var none T
			return none, e.error(err)
		}
		if counts {
			return answer, nil
		}
	}
}

// Apply implements state.Engine.
func (e *engine) Apply(ctx context.Context, changes []state.Change) (outcomes []state.Outcome, err error) {
	err = e.change(ctx, changes, func(decides state.Engine) ([]state.Outcome, error) {
		outcomes, err = decides.Apply(ctx, changes)
		return outcomes, err
	})
	if err != nil {
		return nil, err
	}
	return outcomes, nil
}

// Transact implements state.Engine.
func (e *engine) Transact(ctx context.Context, changes []state.Change) (outcomes []state.Outcome, err error) {
	err = e.change(ctx, changes, func(decides state.Engine) ([]state.Outcome, error) {
		outcomes, err = decides.Transact(ctx, changes)
		return outcomes, err
	})
	if err != nil {
		return nil, err
	}
	return outcomes, nil
}

// change makes changes where the decision is: they are noted before, and carried to the other side after. What was answered when the
// decision may have been elsewhere already is acknowledged to nobody.
func (e *engine) change(ctx context.Context, changes []state.Change, ask func(decides state.Engine) ([]state.Outcome, error)) error {
	v, err := e.guard.enter(ctx, true)
	if err != nil {
		return e.error(err)
	}
	var in intent
	if v.Phase.carries() && !v.dirty.Load() {
		keys := make([]string, len(changes))
		for i := range changes {
			keys[i] = changes[i].Key
		}
		if in, err = v.decides().declare(ctx, keys); err != nil {
			return e.error(err)
		}
	}
	outcomes, err := ask(v.decides().engine)
	switch held := v.held(time.Now()); {
	case !held && (err == nil || errors.Is(err, state.ErrOutcomeUnknown)):
		if err := v.owe(ctx, in); err != nil { // nothing more can be done here than to say so
			e.follow.log.WarnContext(ctx, "a change may have been made where a migration does not look for it any more, and no note of it could be left: "+
				"compare the places before the migration's next step", "store", e.follow.store, "keys", in.keys, "error", err)
		}
		return e.error(fmt.Errorf("%w: the store may have been moved to another place meanwhile", state.ErrOutcomeUnknown))
	case !held, !v.Phase.carries():
		return err
	}
	in.keys = in.keys[:0:0]
	doubt := errors.Is(err, state.ErrOutcomeUnknown)
	for i := range changes {
		unknown := doubt || err == nil && errors.Is(outcomes[i].Err, state.ErrOutcomeUnknown)
		if unknown || err == nil && outcomes[i].Done {
			in.keys = append(in.keys, changes[i].Key)
		}
		if unknown { // it may be made yet: the note stays
			in.name = ""
		}
	}
	e.pass(ctx, wish{view: v, intent: in})
	return err
}

// pass has a change carried, or notes that a comparison is needed.
func (e *engine) pass(ctx context.Context, w wish) {
	if w.name == "" && len(w.keys) == 0 || e.follow.add(w) {
		return
	}
	if err := w.view.soil(ctx); err == nil && w.name != "" {
		_ = w.view.decides().withdraw(ctx, []string{w.name}) // a note too many does no harm
	}
}

func (e *engine) error(err error) error { return fmt.Errorf("state: store %q: %w", e.store, err) }
