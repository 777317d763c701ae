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
	tables *outboxTables
}

func newAnnouncement(d *Driver, box state.OutboxConfig) *announcement {
	return &announcement{
		to:     sqlstate.Announcement{Outbox: box, Now: nowMicros},
		tables: &outboxTables{db: d.db, turn: d.turn},
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
