package sqlitestate

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

var _ state.Announcer = (*Driver)(nil)

// nowMicros is the microseconds since 1970.
const nowMicros = "CAST(unixepoch('subsec') * 1000000 AS INTEGER)"

// OpenOutbox creates the tables when they are absent.
func (d *Driver) OpenOutbox(ctx context.Context, cfg state.OutboxConfig) (state.Outbox, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if err := migrate(ctx, d.writer, sqlstate.OutboxTable, outboxMigrations()); err != nil {
		return nil, failure(ctx, err)
	}
	return sqlstate.NewOutbox(sqlstate.OutboxEngine{
		Own:      isOwn,
		Transact: d.transact,
		Read: func(ctx context.Context, fn func(*sql.DB) error) error {
			if err := fn(d.reader); err != nil {
				return failure(ctx, err)
			}
			return nil
		},
		Room:    d.roomFor,
		Now:     nowMicros,
		Workers: d.workers,
	}, cfg), nil
}

// announcement is how changes are announced in an outbox: the same for all stores that do. It makes the tables when they are
// absent. D.mu is held.
func (d *Driver) announcement(ctx context.Context, box state.OutboxConfig) (*sqlstate.Announcement, error) {
	if a := d.announcements[box]; a != nil {
		return a, nil
	}
	if err := migrate(ctx, d.writer, sqlstate.OutboxTable, outboxMigrations()); err != nil {
		return nil, err
	}
	a := &sqlstate.Announcement{Outbox: box, Room: d.roomFor, Now: nowMicros}
	if err := a.Prepare(ctx, d.writer); err != nil {
		return nil, err
	}
	d.announcements[box] = a
	return a, nil
}

// outboxReserve is the room that outboxes leave on the disk, in bytes. To send what waits is to claim and to delete it, which
// is written too: an outbox that filled the disk could not be emptied. The log that SQLite writes ahead has 4 MiB before it
// is used anew.
const outboxReserve = 8 << 20

func (d *Driver) roomFor(bytes int64) error {
	free, known := freeBytes(filepath.Dir(d.cfg.Path))
	if !known || free-bytes >= outboxReserve {
		return nil
	}
	return fmt.Errorf("%w: %w: sqlite: %d MiB are free, of which an outbox leaves %d", state.ErrUnavailable, state.ErrNoSpace, free>>20, outboxReserve>>20)
}

// outboxMigrations are the statements that make the tables, oldest first; released ones never change. Instants are
// microseconds since 1970.
func outboxMigrations() [][]string {
	return [][]string{{
		`CREATE TABLE IF NOT EXISTS outbox (
			name          TEXT    NOT NULL,
			id            INTEGER NOT NULL,
			partition_key TEXT    NOT NULL,
			topic         TEXT    NOT NULL,
			properties    TEXT    NOT NULL,
			body          BLOB    NOT NULL,
			size          INTEGER NOT NULL,
			created_at    INTEGER NOT NULL,
			claimed_by    TEXT,
			claimed_until INTEGER,
			attempts      INTEGER NOT NULL,
			parked_at     INTEGER,
			failure       TEXT,
			PRIMARY KEY (name, id)
		)`,
		`CREATE INDEX IF NOT EXISTS outbox_keys ON outbox (name, partition_key, claimed_until)`,
		`CREATE TABLE IF NOT EXISTS outbox_turn (
			name    TEXT    NOT NULL PRIMARY KEY,
			turns   INTEGER NOT NULL,
			last_id INTEGER NOT NULL,
			entries INTEGER NOT NULL,
			bytes   INTEGER NOT NULL,
			parked  INTEGER NOT NULL
		)`,
	}}
}
