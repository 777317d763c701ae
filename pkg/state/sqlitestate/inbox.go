package sqlitestate

import (
	"context"
	"database/sql"
	"errors"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

var _ state.InboxDriver = (*Driver)(nil)

// OpenInbox creates the tables when they are absent.
func (d *Driver) OpenInbox(ctx context.Context, cfg state.InboxConfig) (state.Inbox, error) {
	cfg, err := cfg.Complete()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	if err := migrate(ctx, d.writer, sqlstate.InboxTable, inboxMigrations()); err != nil {
		return nil, failure(ctx, err)
	}
	box := sqlstate.NewInbox(sqlstate.InboxEngine{
		Transact: d.transact,
		Own:      isOwn,
		Ignore:   "INSERT OR IGNORE",
		Now:      nowMicros,
		Old:      "WHERE rowid IN (SELECT rowid FROM inbox WHERE name = ? AND handled_at < " + nowMicros + " - ? ORDER BY handled_at LIMIT ?)",
	}, cfg)
	d.inboxes = append(d.inboxes, box)
	return box, nil
}

// isOwn reports whether an error that a caller met in its transaction is that of a file that cannot be used now.
func isOwn(err error) bool {
	switch resultCode(err) {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR:
		return true
	}
	return errors.Is(err, sql.ErrTxDone) || errors.Is(err, sql.ErrConnDone)
}

// inboxMigrations are the statements that make the tables, oldest first; released ones never change. Instants are
// microseconds since 1970.
func inboxMigrations() [][]string {
	return [][]string{{
		`CREATE TABLE IF NOT EXISTS inbox (
			name       TEXT    NOT NULL,
			message_id TEXT    NOT NULL,
			handled_at INTEGER NOT NULL,
			PRIMARY KEY (name, message_id)
		)`,
		`CREATE INDEX IF NOT EXISTS inbox_old ON inbox (name, handled_at)`,
		`CREATE TABLE IF NOT EXISTS inbox_turn (
			name  TEXT    NOT NULL PRIMARY KEY,
			owner TEXT    NOT NULL,
			until INTEGER NOT NULL
		)`,
	}}
}
