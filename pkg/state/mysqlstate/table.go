package mysqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/pressly/goose/v3/database"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// A table is made, and its statements are prepared, when the server is first reached.
type table struct {
	name string
	db   *sql.DB
	turn chan struct{} // held by the one that makes the table
	made atomic.Pointer[statements]

	serves  bool   // a store that is more than a counterpart; under the driver's lock
	follows bool   // it is the replica's: the primary makes it
	copy    *table // the replica's; nil: none

	closed atomic.Bool
}

// statements are prepared once for each table and kept: half the round trips.
type statements struct {
	get, exists                   string // kept prepared by each connection
	save, insert, replace, update *sql.Stmt
	remove, removeETag            *sql.Stmt
	expired                       *sql.Stmt
	insertRows, setRows, keepRows *rowsStatement
}

const (
	columns = "e.`key`, e.value, e.etag, e.version, e.created_at, e.updated_at, e.expires_at"
	// live is the condition that a row has not expired, by the server's clock, which stands still within a statement.
	live = "(e.expires_at IS NULL OR e.expires_at > UTC_TIMESTAMP(6))"
	// sweepBatch is how many rows one sweep statement deletes: few, so that it holds locks briefly.
	sweepBatch = 500
)

// The parameters of a row: store, key, value, ETag, microseconds to live or NULL.
const newRow = "(?, ?, ?, ?, 1, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND)"

const insertInto = "INSERT INTO {table} (store, `key`, value, etag, version, created_at, updated_at, expires_at) VALUES "

func newTable(db *sql.DB, name string, turn chan struct{}) *table {
	return &table{name: name, db: db, turn: turn}
}

// sql puts the table's name, which has been checked, into a statement.
func (t *table) sql(text string) string { return strings.ReplaceAll(text, "{table}", t.name) }

// prepared returns the statements, after it has made the table if that has not been done yet.
func (t *table) prepared(ctx context.Context) (*statements, error) {
	if t.closed.Load() {
		return nil, errClosed
	}
	if s := t.made.Load(); s != nil {
		return s, nil
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return nil, unavailable(ctx, ctx.Err())
	}
	if s := t.made.Load(); s != nil {
		return s, nil
	}
	if !t.follows {
		if err := migrate(ctx, t.db, t.name, migrations); err != nil {
			return nil, failure(ctx, err, reading)
		}
	}
	s, err := t.prepare(ctx)
	if err != nil {
		return nil, failure(ctx, err, reading)
	}
	t.made.Store(s)
	return s, nil
}

// migrate makes a table. Of several processes that start at once, one does it and the others wait, by a lock that the
// server drops with its connection.
func migrate(ctx context.Context, db *sql.DB, name string, migrations func(table string, mariaDB bool) [][]string) (err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	const lock = "CONCAT('bannou:', SHA1(CONCAT(DATABASE(), '.', ?)))" // names are limited to 64 characters
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, "SELECT GET_LOCK("+lock+", 30)", name).Scan(&got); err != nil {
		return err
	}
	if got.Int64 != 1 {
		return fmt.Errorf("%w: another process has been migrating table %s for 30 s", state.ErrUnavailable, name)
	}
	defer func() {
		_, unlock := conn.ExecContext(context.WithoutCancel(ctx), "DO RELEASE_LOCK("+lock+")", name)
		err = errors.Join(err, unlock)
	}()
	var version string
	if err := conn.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return err
	}
	return sqlstate.Migrate(ctx, db, database.DialectMySQL, name, migrations(name, strings.Contains(version, "MariaDB")))
}

// migrations are the statements that make a table, oldest first; released ones never change.
//
// Keys are utf8mb4 compared by code point, in the variant that does not ignore trailing blanks: under utf8mb4_bin itself
// "a" and "a " would be one key. The servers name that variant differently. The value is text, not MySQL's JSON, which
// rounds decimals to floats and reorders members: numbers come back to the digit.
func migrations(table string, mariaDB bool) [][]string {
	exact := "CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin"
	if mariaDB {
		exact = "CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
	}
	return [][]string{{
		"CREATE TABLE IF NOT EXISTS " + table + " (" +
			"store VARCHAR(64) " + exact + " NOT NULL," +
			"`key` VARCHAR(255) " + exact + " NOT NULL," +
			"value LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL CHECK (JSON_VALID(value))," +
			"etag VARCHAR(64) " + exact + " NOT NULL," +
			"version BIGINT NOT NULL," +
			"created_at DATETIME(6) NOT NULL," +
			"updated_at DATETIME(6) NOT NULL," +
			"expires_at DATETIME(6) NULL," +
			"PRIMARY KEY (store, `key`)," +
			"KEY " + table + "_expiry (expires_at, store)" +
			") ENGINE=InnoDB ROW_FORMAT=DYNAMIC",
	}}
}

func (t *table) prepare(ctx context.Context) (*statements, error) {
	const one = " WHERE e.store = ? AND e.`key` = ? AND " + live
	s := &statements{get: t.sql("SELECT " + columns + " FROM {table} e" + one), exists: t.sql("SELECT e.`key` FROM {table} e" + one)}
	for _, p := range []struct {
		stmt **sql.Stmt
		text string
	}{
		// LAST_INSERT_ID(x) sends x back with the answer, here the version. The assignments are made from left to right,
		// and see those before them: the expiry is read until it is set last. An expired row counts as absent.
		{&s.save, insertInto + newRow + " ON DUPLICATE KEY UPDATE" +
			" version = LAST_INSERT_ID(IF(expires_at <= UTC_TIMESTAMP(6), 1, version + 1))," +
			" created_at = IF(expires_at <= UTC_TIMESTAMP(6), VALUES(created_at), created_at)," +
			" value = VALUES(value), etag = VALUES(etag), updated_at = VALUES(updated_at)," +
			" expires_at = IF(? AND expires_at > UTC_TIMESTAMP(6), expires_at, VALUES(expires_at))"},
		{&s.insert, insertInto + newRow},
		{&s.replace, "UPDATE {table} SET version = 1, value = ?, etag = ?, created_at = UTC_TIMESTAMP(6), updated_at = UTC_TIMESTAMP(6)," +
			" expires_at = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND WHERE store = ? AND `key` = ? AND expires_at <= UTC_TIMESTAMP(6)"},
		{&s.update, "UPDATE {table} e SET e.version = LAST_INSERT_ID(e.version + 1), e.value = ?, e.etag = ?, e.updated_at = UTC_TIMESTAMP(6)," +
			" e.expires_at = IF(?, e.expires_at, UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND)" + one + " AND e.etag = ?"},
		{&s.remove, "DELETE FROM {table} WHERE store = ? AND `key` = ? AND (expires_at IS NULL OR expires_at > UTC_TIMESTAMP(6))"},
		{&s.removeETag, "DELETE FROM {table} WHERE store = ? AND `key` = ? AND (expires_at IS NULL OR expires_at > UTC_TIMESTAMP(6)) AND etag = ?"},
		{&s.expired, fmt.Sprintf("DELETE FROM {table} WHERE expires_at <= UTC_TIMESTAMP(6) ORDER BY expires_at LIMIT %d", sweepBatch)},
	} {
		var err error
		//nolint:sqlclosecheck // close does, when the table is closed
		if *p.stmt, err = t.db.PrepareContext(ctx, t.sql(p.text)); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	for _, p := range []struct {
		statement **rowsStatement
		tail      string
	}{{&s.insertRows, ""}, {&s.setRows, replaceRows + ", expires_at = VALUES(expires_at)"}, {&s.keepRows, replaceRows}} {
		var err error
		if *p.statement, err = prepareRows(ctx, t.db, t.sql(insertInto), p.tail); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

func (s *statements) close() error {
	var errs []error
	for _, stmt := range []*sql.Stmt{s.save, s.insert, s.replace, s.update, s.remove, s.removeETag, s.expired} {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	for _, r := range []*rowsStatement{s.insertRows, s.setRows, s.keepRows} {
		if r != nil {
			errs = append(errs, r.close())
		}
	}
	return errors.Join(errs...)
}

func (t *table) close() error {
	t.closed.Store(true)
	var errs []error
	if s := t.made.Load(); s != nil {
		errs = append(errs, s.close())
	}
	if t.copy != nil {
		errs = append(errs, t.copy.close())
	}
	return errors.Join(errs...)
}

// sweep deletes the rows that have expired, a few at a time.
func (t *table) sweep(ctx context.Context) error {
	s := t.made.Load()
	for s != nil {
		result, err := s.expired.ExecContext(ctx)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n < sweepBatch {
			return err
		}
	}
	return nil
}
