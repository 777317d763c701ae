package mysqlstate

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"

	"github.com/go-sql-driver/mysql"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

var _ state.InboxDriver = (*Driver)(nil)

// OpenInbox names an inbox; its tables are made by the first operation that reaches the server.
func (d *Driver) OpenInbox(_ context.Context, cfg state.InboxConfig) (state.Inbox, error) {
	cfg, err := cfg.Complete()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	t := &tables{db: d.db, turn: d.turn, name: sqlstate.InboxTable, migrations: inboxMigrations}
	box := sqlstate.NewInbox(sqlstate.InboxEngine{
		Transact: t.transact,
		Own:      isOwn,
		Ignore:   "INSERT IGNORE",
		Now:      nowMicros,
		Old:      "WHERE name = ? AND handled_at < " + nowMicros + " - ? ORDER BY handled_at LIMIT ?",
	}, cfg)
	d.inboxes = append(d.inboxes, box)
	return box, nil
}

// isOwn reports whether an error that a caller met in its transaction says that the server was away, or that others were in the way.
func isOwn(err error) bool {
	switch number(err) {
	case deadlock, lockWaitTimeout, connectionKilled, serverShutsDown, queryInterrupted, diskFull, tableFull:
		return true
	}
	var connect *connectError
	var network net.Error
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, sql.ErrTxDone) || errors.Is(err, sql.ErrConnDone) ||
		errors.As(err, &connect) || errors.As(err, &network) && !errors.Is(err, context.DeadlineExceeded)
}

// inboxMigrations are the statements that make the tables, oldest first; released ones never change. Names and ids are bytes, so that nothing
// but the same is the same. Instants are microseconds since 1970, by the server's clock.
func inboxMigrations(string, bool) [][]string {
	return [][]string{{
		"CREATE TABLE IF NOT EXISTS inbox (" +
			"name VARBINARY(255) NOT NULL," +
			"message_id VARBINARY(255) NOT NULL," +
			"handled_at BIGINT NOT NULL," +
			"PRIMARY KEY (name, message_id)," +
			"KEY inbox_old (name, handled_at)" +
			") ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
		"CREATE TABLE IF NOT EXISTS inbox_turn (" +
			"name VARBINARY(255) NOT NULL PRIMARY KEY," +
			"owner VARBINARY(64) NOT NULL," +
			"until BIGINT NOT NULL" +
			") ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
	}}
}
