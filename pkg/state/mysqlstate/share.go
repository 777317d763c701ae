package mysqlstate

import (
	"context"
	"fmt"
	"slices"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// lanes is how many transactions of single changes a store has under way at once. More of them share less; fewer leave
// the server's cores idle while one waits for the disk.
const lanes = 2

// A write is one change, and what became of it.
type write struct {
	change  state.Change
	outcome state.Outcome
}

func newGathering(e *engine, workers *sqlstate.Workers) *sqlstate.Gathering[write] {
	return &sqlstate.Gathering[write]{Alone: e.writeAlone, Together: e.writeTogether, Lanes: lanes, Workers: workers}
}

// share makes one change: alone with one statement, or, when others are under way, in one transaction with those that
// wait like it. A condition that does not hold is its own; the others are made.
func (e *engine) share(ctx context.Context, c state.Change) (state.Outcome, error) {
	if c.Shared {
		c.Value = slices.Clone(c.Value) // the caller may be gone when it is written
	}
	made, err := e.gathering.Do(ctx, write{change: c}, int64(len(c.Value)))
	if err != nil {
		// What was sent has said so; otherwise it was not its turn.
		return state.Outcome{}, e.failure(ctx, fmt.Errorf("key %q: %w", c.Key, err))
	}
	return made.outcome, nil
}

func (e *engine) writeAlone(ctx context.Context, call *sqlstate.Call[write]) error {
	if c := &call.Ask.change; e.announcement != nil && c.Announce != nil {
		if c.When == state.Always {
			return e.announceAlone(ctx, &call.Ask)
		}
		return e.writeTogether(ctx, []*sqlstate.Call[write]{call})
	}
	err := e.retry(ctx, func(s *statements) (err error) {
		call.Ask.outcome, err = e.change(ctx, s, &call.Ask.change)
		return err
	})
	if err != nil {
		return failure(ctx, err, writing)
	}
	return nil
}

func (e *engine) writeTogether(ctx context.Context, calls []*sqlstate.Call[write]) error {
	changes := make([]state.Change, len(calls))
	for i, call := range calls {
		changes[i] = call.Ask.change
	}
	outcomes, err := e.transact(ctx, changes, false)
	if err != nil {
		return err
	}
	for i, call := range calls {
		call.Ask.outcome = outcomes[i]
	}
	return nil
}
