package sqlitestate

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// A write is one change of a store, and what became of it.
type write struct {
	engine  *engine
	change  state.Change
	outcome state.Outcome
}

// share makes one change: alone, or, when the file is being written to, in one transaction with those that wait like it,
// of whichever stores. A condition that does not hold is its own; the others are made.
func (e *engine) share(ctx context.Context, c state.Change) (state.Outcome, error) {
	if c.Shared {
		c.Value = bytes.Clone(c.Value) // the caller may be gone when it is written
	}
	made, err := e.driver.gathering.Do(ctx, write{engine: e, change: c}, int64(len(c.Value)))
	if err != nil {
		return state.Outcome{}, e.failure(ctx, fmt.Errorf("key %q: %w", c.Key, err))
	}
	return made.outcome, nil
}

func (d *Driver) writeAlone(ctx context.Context, call *sqlstate.Call[write]) error {
	return d.writeTogether(ctx, []*sqlstate.Call[write]{call})
}

func (d *Driver) writeTogether(ctx context.Context, calls []*sqlstate.Call[write]) error {
	return d.transact(ctx, func(tx *sql.Tx) (err error) {
		now := time.Now()
		for _, call := range calls {
			w := &call.Ask
			if w.outcome, err = w.engine.change(ctx, tx, &w.change, now); err != nil {
				return err
			}
		}
		return announce(ctx, tx, calls)
	})
}

// announce adds what the changes announce, in their order.
func announce(ctx context.Context, tx *sql.Tx, calls []*sqlstate.Call[write]) error {
	var to *sqlstate.Announcement
	var entries []*state.OutboxEntry // for it
	for _, call := range calls {
		w := &call.Ask
		if w.engine.announcement == nil {
			continue
		}
		entry, err := sqlstate.EntryOf(&w.change, w.outcome)
		if err != nil {
			return err
		}
		if entry == nil {
			continue
		}
		if to != nil && to != w.engine.announcement {
			if err := to.AddEntries(ctx, tx, entries); err != nil {
				return err
			}
			entries = nil
		}
		to, entries = w.engine.announcement, append(entries, entry)
	}
	if to == nil {
		return nil
	}
	return to.AddEntries(ctx, tx, entries)
}

// transact runs one transaction of the one writing connection.
func (d *Driver) transact(ctx context.Context, run func(*sql.Tx) error) error {
	tx, err := d.writer.BeginTx(ctx, nil)
	if err != nil {
		return failure(ctx, err)
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if err := run(tx); err != nil {
		return failure(ctx, err)
	}
	return commit(ctx, tx)
}
