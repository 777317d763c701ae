package mysqlstate

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

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

// share makes one change: alone, or, when others are under way, in one transaction with those that wait like it. A condition that does not hold
// is its own; the others are made.
func share(ctx context.Context, g *sqlstate.Gathering[write], c state.Change) (state.Outcome, error) {
	if c.Shared {
		c.Value = slices.Clone(c.Value) // the caller may be gone when it is written
	}
	made, err := g.Do(ctx, write{change: c}, int64(len(c.Value)))
	if err != nil {
		// What was sent has said so; otherwise it was not its turn.
		return state.Outcome{}, fmt.Errorf("key %q: %w", c.Key, err)
	}
	return made.outcome, nil
}

// writeTogether makes the changes of several callers in one transaction, and tells each what became of its own.
func writeTogether(calls []*sqlstate.Call[write], transact func([]state.Change) ([]state.Outcome, error)) error {
	changes := make([]state.Change, len(calls))
	for i, call := range calls {
		changes[i] = call.Ask.change
	}
	outcomes, err := transact(changes)
	if err != nil {
		return err
	}
	for i, call := range calls {
		call.Ask.outcome = outcomes[i]
	}
	return nil
}

// writeAlone makes one change with one statement.
func (e *engine) writeAlone(ctx context.Context, call *sqlstate.Call[write]) error {
	if c := &call.Ask.change; e.announcement != nil && c.Announce != nil {
		if c.When == state.Always {
			return e.announceAlone(ctx, &call.Ask)
		}
		return e.writeTogether(ctx, []*sqlstate.Call[write]{call})
	}
	var sent atomic.Bool
	err := e.retry(ctx, func(s *statements) (err error) {
		sent.Store(false) // a try before this one has changed nothing
		call.Ask.outcome, err = e.change(noteSent(ctx, &sent), s, &call.Ask.change)
		return err
	})
	if err != nil {
		return failure(ctx, err, doing(sent.Load()))
	}
	return nil
}

func (e *engine) writeTogether(ctx context.Context, calls []*sqlstate.Call[write]) error {
	return writeTogether(calls, func(changes []state.Change) ([]state.Outcome, error) { return e.transact(ctx, changes, false) })
}
