package mysqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// A batch is what a transaction writes, sorted by the kind of statement.
type batch struct {
	engine     *engine
	statements *statements
	tx         *sql.Tx
	removes    []string // keys
	inserts    [][]any  // rows that are not in the table
	setting    [][]any  // rows that are replaced, expiry too
	keeping    [][]any  // rows that are replaced and keep their expiry
}

func (b *batch) add(key string, r *row) {
	anew := r.created && r.version > 1 // it was removed, created and saved again: what it was before must not shine through
	if r.changed && r.stored && (!r.present || anew) {
		b.removes = append(b.removes, key)
	}
	if !r.changed || !r.present {
		return
	}
	values := []any{b.engine.store, key, r.value, r.etag, r.version, r.toLive}
	switch {
	case !r.stored || anew:
		b.inserts = append(b.inserts, values)
	case r.keeps:
		b.keeping = append(b.keeping, values)
	default:
		b.setting = append(b.setting, values)
	}
}

func (b *batch) write(ctx context.Context) error {
	if len(b.removes) > 0 {
		statement := sqlstate.SQL(b.engine.table.sql("DELETE FROM {table} WHERE store = @ AND `key` IN (@)"),
			sqlstate.Bind(b.engine.store), sqlstate.Binds(b.removes))
		if _, err := b.tx.ExecContext(ctx, statement.Text, statement.Args...); err != nil {
			return fmt.Errorf("deleting: %w", err)
		}
	}
	for _, step := range []struct {
		statement *rowsStatement
		rows      [][]any
	}{{b.statements.insertRows, b.inserts}, {b.statements.setRows, b.setting}, {b.statements.keepRows, b.keeping}} {
		for rows := range chunks(step.rows) {
			if err := step.statement.exec(ctx, b.tx, rows); err != nil {
				return err
			}
		}
	}
	return nil
}

// A rowsStatement writes many rows at once. It is prepared for a few numbers of them: the server takes half as long for
// a value that it is sent apart as for one that it reads in the text of a statement.
type rowsStatement struct {
	head, tail string
	prepared   [5]*sql.Stmt
	repeats    bool // a row may come twice
}

// rowCounts are the numbers of rows that statements are prepared for, largest first.
func rowCounts() [5]int { return [5]int{64, 32, 16, 8, 4} }

const (
	// The parameters of a row: store, key, value, ETag, version, microseconds to live or NULL.
	versionedRow = "(?, ?, ?, ?, ?, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND)"

	// The rows replaced are locked, so that their versions are known: the insert always meets its duplicate.
	replaceRows = " ON DUPLICATE KEY UPDATE created_at = IF(VALUES(version) = 1, VALUES(created_at), created_at), version = VALUES(version)," +
		" value = VALUES(value), etag = VALUES(etag), updated_at = VALUES(updated_at)"
)

func prepareRows(ctx context.Context, db *sql.DB, head, tail string) (*rowsStatement, error) {
	r := &rowsStatement{head: head, tail: tail, repeats: tail != ""}
	for i, n := range rowCounts() {
		var err error
		//nolint:sqlclosecheck // close does, when the table is closed
		if r.prepared[i], err = db.PrepareContext(ctx, r.text(n)); err != nil {
			return nil, errors.Join(err, r.close())
		}
	}
	return r, nil
}

func (r *rowsStatement) text(rows int) string {
	return r.head + versionedRow + strings.Repeat(", "+versionedRow, rows-1) + r.tail
}

func (r *rowsStatement) close() error {
	var errs []error
	for _, stmt := range r.prepared {
		if stmt != nil {
			errs = append(errs, stmt.Close())
		}
	}
	return errors.Join(errs...)
}

// exec writes the rows, with as few prepared statements as fit, and by text what is left.
func (r *rowsStatement) exec(ctx context.Context, tx *sql.Tx, rows [][]any) error {
	for len(rows) > 0 {
		part, stmt := r.next(rows)
		var args []any
		for _, row := range part {
			args = append(args, row...)
		}
		rows = rows[min(len(part), len(rows)):]
		var err error
		if stmt != nil {
			_, err = tx.StmtContext(ctx, stmt).ExecContext(ctx, args...)
		} else {
			_, err = tx.ExecContext(ctx, r.text(len(part)), args...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// next is the rows of the next statement: as many as one is prepared for, or a few less, and then the last row is
// written again in their place.
func (r *rowsStatement) next(rows [][]any) ([][]any, *sql.Stmt) {
	for i, n := range rowCounts() {
		short := n - len(rows)
		switch {
		case short <= 0:
			return rows[:n], r.prepared[i]
		case r.repeats && 4*short <= n:
			padded := append(make([][]any, 0, n), rows...)
			for len(padded) < n {
				padded = append(padded, rows[len(rows)-1])
			}
			return padded, r.prepared[i]
		}
	}
	return rows, nil
}

// chunks splits rows so that a statement stays well below max_allowed_packet, whose default is 16 MiB on MariaDB, even
// if every byte of a value has to be escaped. The largest value, 4 MiB, is one chunk.
func chunks(rows [][]any) iter.Seq[[][]any] {
	const most = 2 << 20
	return func(yield func([][]any) bool) {
		size, begin := 0, 0
		for i, row := range rows {
			n := 0
			for _, arg := range row {
				if s, ok := arg.(string); ok {
					n += len(s)
				}
			}
			if size += n; size > most && i > begin {
				if !yield(rows[begin:i]) {
					return
				}
				begin, size = i, n
			}
		}
		if begin < len(rows) {
			yield(rows[begin:])
		}
	}
}
