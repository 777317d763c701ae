package mysqlstate

import (
	"context"
	"database/sql"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// An announcement has the changes of a store add to an outbox of the server. Nil has them add nothing.
type announcement struct {
	to     sqlstate.Announcement
	tables *tables
}

func newAnnouncement(d *Driver, box state.OutboxConfig) *announcement {
	return &announcement{
		to:     sqlstate.Announcement{Outbox: box, Now: nowMicros},
		tables: d.outboxTables(),
	}
}

// prepare sees to it that the tables of the outbox are there.
func (a *announcement) prepare(ctx context.Context) error {
	if a == nil {
		return nil
	}
	return a.tables.prepare(ctx)
}

// add is the last step of a transaction that made changes.
func (a *announcement) add(ctx context.Context, tx *sql.Tx, changes []state.Change, outcomes []state.Outcome) error {
	if a == nil {
		return nil
	}
	return a.to.Add(ctx, tx, changes, outcomes)
}

// announceAlone makes a change without condition by its one statement, and announces it in the same transaction. With a
// condition the statement may have to look at the row again, on a connection that a transaction must not wait for.
func (e *engine) announceAlone(ctx context.Context, w *write) error {
	err := e.announcement.prepare(ctx)
	if err == nil {
		err = e.retry(ctx, func(s *statements) error { return e.tryAnnounce(ctx, s, w) })
	}
	if err != nil {
		return failure(ctx, err, reading) // until the commit, which speaks for itself, nothing has been changed
	}
	return nil
}

func (e *engine) tryAnnounce(ctx context.Context, s *statements, w *write) error {
	tx, err := e.table.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if w.change.Delete {
		w.outcome, err = e.remove(ctx, &statements{remove: tx.StmtContext(ctx, s.remove)}, &w.change)
	} else {
		w.outcome, err = e.save(ctx, &statements{save: tx.StmtContext(ctx, s.save)}, &w.change)
	}
	if err == nil {
		err = e.announcement.add(ctx, tx, []state.Change{w.change}, []state.Outcome{w.outcome})
	}
	if err != nil {
		if number(err) == duplicateKey {
			return errRaced // another process made the row of the outbox
		}
		return err
	}
	return commit(ctx, tx)
}
