package sqlitestate

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"
)

// A table holds the statements of one table.
type table struct {
	name   string
	writer *sql.DB
	reader *sql.DB

	get, getMany       string // kept prepared by the readers
	exists, existsMany string

	count                      *sql.Stmt
	save, saveAbsent, saveETag *sql.Stmt
	remove, removeETag         *sql.Stmt
	present                    *sql.Stmt // as exists, for the writer's transaction
	expired                    *sql.Stmt
}

const (
	// columns are those of a record. The value is text in the file; as bytes it is copied once on its way, not three times.
	columns = "e.key, CAST(e.value AS BLOB), e.etag, e.version, e.created_at, e.updated_at, e.expires_at"
	// live is the condition that a row has not expired; the process's clock is its argument.
	live = "(e.expires_at IS NULL OR e.expires_at > ?)"
	// sweepBatch is how many expired rows one sweep statement removes: few, as changes wait meanwhile.
	sweepBatch = 200
)

// Parameters of the saves: 1 store, 2 key, 3 value, 4 ETag, 5 now, 6 expiry or NULL, 7 whether to keep the expiry, 8 the
// ETag that there must be. An expired row that is still there counts as absent: version and creation start again.
const (
	insertRow = `INSERT INTO {table} AS e (store, key, value, etag, version, created_at, updated_at, expires_at)
		VALUES (?1, ?2, ?3, ?4, 1, ?5, ?5, ?6) ON CONFLICT (store, key) DO UPDATE SET `
	replaceRow = `value = ?3, etag = ?4, updated_at = ?5,
		version = CASE WHEN e.expires_at <= ?5 THEN 1 ELSE e.version + 1 END,
		created_at = CASE WHEN e.expires_at <= ?5 THEN ?5 ELSE e.created_at END,
		expires_at = CASE WHEN ?7 AND e.expires_at > ?5 THEN e.expires_at ELSE ?6 END`
)

func prepareTable(ctx context.Context, writer, reader *sql.DB, name string) (*table, error) {
	t := &table{name: name, writer: writer, reader: reader}
	const one, many = " FROM {table} e WHERE e.store = ? AND e.key = ? AND " + live,
		" FROM json_each(?) k CROSS JOIN {table} e ON e.store = ? AND e.key = k.value WHERE " + live
	t.get, t.getMany = t.sql("SELECT "+columns+one), t.sql("SELECT "+columns+many)
	t.exists, t.existsMany = t.sql("SELECT e.key"+one), t.sql("SELECT e.key"+many)
	for _, s := range []struct {
		db   *sql.DB
		stmt **sql.Stmt
		text string
	}{
		{reader, &t.count, `SELECT (SELECT count(*) FROM {table} WHERE store = ?1) - (SELECT count(*) FROM {table} WHERE store = ?1 AND expires_at <= ?2)`},
		{writer, &t.save, insertRow + replaceRow + ` RETURNING version`},
		{writer, &t.saveAbsent, insertRow + replaceRow + ` WHERE e.expires_at <= ?5 RETURNING version`},
		{writer, &t.saveETag, `UPDATE {table} AS e SET ` + replaceRow + ` WHERE e.store = ?1 AND e.key = ?2 AND e.etag = ?8
			AND (e.expires_at IS NULL OR e.expires_at > ?5) RETURNING version`},
		{writer, &t.remove, `DELETE FROM {table} AS e WHERE e.store = ? AND e.key = ? AND ` + live},
		{writer, &t.removeETag, `DELETE FROM {table} AS e WHERE e.store = ? AND e.key = ? AND ` + live + ` AND e.etag = ?`},
		{writer, &t.present, `SELECT e.key FROM {table} e WHERE e.store = ? AND e.key = ? AND ` + live},
		{writer, &t.expired, `DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE expires_at <= ? LIMIT ?)`},
	} {
		var err error
		//nolint:sqlclosecheck // close does, when the table is closed
		if *s.stmt, err = s.db.PrepareContext(ctx, t.sql(s.text)); err != nil {
			return nil, errors.Join(err, t.close())
		}
	}
	return t, nil
}

// sql puts the table's name, which has been checked, into a statement.
func (t *table) sql(text string) string { return strings.ReplaceAll(text, "{table}", t.name) }

func (t *table) close() error {
	var errs []error
	for _, s := range []*sql.Stmt{t.count, t.save, t.saveAbsent, t.saveETag,
		t.remove, t.removeETag, t.present, t.expired} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// sweep removes the rows that have expired, a few at a time.
func (t *table) sweep(ctx context.Context) error {
	for {
		result, err := t.expired.ExecContext(ctx, time.Now().UnixMicro(), sweepBatch)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n < sweepBatch {
			return err
		}
	}
}
