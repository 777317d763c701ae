package mysqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Transact makes the changes in one transaction.
func (e *engine) Transact(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	return e.transact(ctx, changes, true)
}

// A locked row is what stands in the table under a key of a transaction that holds its lock.
type locked struct {
	etag    string
	version int64
	expired bool
}

// transact locks the rows there are, decides for each change whether its condition holds, and writes those with a few
// statements of many rows. With together, a condition that does not hold undoes them all.
func (e *engine) transact(ctx context.Context, changes []state.Change, together bool) ([]state.Outcome, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	var outcomes []state.Outcome
	err := e.retry(ctx, func(*statements) (err error) {
		outcomes, err = e.tryTransact(ctx, changes, together)
		return err
	})
	if err != nil {
		// Until the commit, which speaks for itself, nothing has been changed.
		return nil, e.failure(ctx, err, reading)
	}
	return outcomes, nil
}

func (e *engine) tryTransact(ctx context.Context, changes []state.Change, together bool) (_ []state.Outcome, err error) {
	tx, err := e.table.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	rows, err := e.lock(ctx, tx, changes)
	if err != nil {
		return nil, err
	}
	outcomes := make([]state.Outcome, len(changes))
	b := batch{engine: e, tx: tx}
	conflict := false
	for i := range changes {
		row, found := rows[changes[i].Key]
		outcomes[i] = decide(&changes[i], row, found)
		conflict = conflict || outcomes[i].Conflict
		if outcomes[i].Done {
			b.add(&changes[i], outcomes[i], row, found)
		}
	}
	if together && conflict {
		for i := range outcomes {
			if !outcomes[i].Conflict {
				outcomes[i] = state.Outcome{}
			}
		}
		return outcomes, nil
	}
	if err := b.write(ctx); err != nil {
		if number(err) == duplicateKey {
			return nil, errRaced // a row that was absent is there now
		}
		return nil, err
	}
	return outcomes, commit(ctx, tx)
}

// commit ends a transaction. Its errors say themselves when it is unknown what became of it.
func commit(ctx context.Context, tx *sql.Tx) error {
	err := tx.Commit()
	if n := number(err); err == nil || n == deadlock || n == lockWaitTimeout || errors.Is(err, sql.ErrTxDone) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err // the commit did not begin, or was refused
	}
	return failure(ctx, err, writing)
}

// lock reads and locks the rows of all changes, in the order of their keys, so that transactions do not wait for each
// other in a circle. Under READ COMMITTED a row that is absent is not locked: its insert finds out.
func (e *engine) lock(ctx context.Context, tx *sql.Tx, changes []state.Change) (_ map[string]locked, err error) {
	keys := make([]string, len(changes))
	for i := range changes {
		keys[i] = changes[i].Key
	}
	query := sqlstate.SQL(e.table.sql("SELECT e.`key`, e.etag, e.version, NOT "+live+" FROM {table} e WHERE e.store = @ AND e.`key` IN (@) ORDER BY e.store, e.`key` FOR UPDATE"),
		sqlstate.Bind(e.store), sqlstate.Binds(keys))
	rows, err := tx.QueryContext(ctx, query.Text, query.Args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	found := make(map[string]locked, len(keys))
	for rows.Next() {
		var key string
		var row locked
		if err := rows.Scan(&key, &row.etag, &row.version, &row.expired); err != nil {
			return nil, err
		}
		found[key] = row
	}
	return found, rows.Err()
}

// decide is the outcome of a change on a row that is locked.
func decide(c *state.Change, row locked, found bool) state.Outcome {
	present := found && !row.expired
	switch {
	case c.When == state.IfETag && (!present || row.etag != c.ETag), c.When == state.IfAbsent && present:
		return state.Outcome{Conflict: true, Absent: !present}
	case c.Delete:
		return state.Outcome{Done: present}
	case present:
		return state.Outcome{Done: true, ETag: sqlstate.NewETag(), Version: row.version + 1}
	default:
		return state.Outcome{Done: true, ETag: sqlstate.NewETag(), Version: 1}
	}
}

// A batch is what a transaction writes, sorted by the kind of statement.
type batch struct {
	engine  *engine
	tx      *sql.Tx
	inserts []sqlstate.Expr // rows that were absent
	setting []sqlstate.Expr // rows that are replaced, expiry too
	keeping []sqlstate.Expr // rows that are replaced and keep their expiry
	removes []sqlstate.Expr // keys
}

func (b *batch) add(c *state.Change, o state.Outcome, row locked, found bool) {
	if c.Delete {
		b.removes = append(b.removes, sqlstate.Bind(c.Key))
		return
	}
	values := sqlstate.SQL("(@, @, @, @, @, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) + INTERVAL @ MICROSECOND)",
		sqlstate.Bind(b.engine.store), sqlstate.Bind(c.Key), sqlstate.Bind(text(c)), sqlstate.Bind(o.ETag), sqlstate.Bind(o.Version), sqlstate.Bind(toLive(c)))
	switch {
	case !found:
		b.inserts = append(b.inserts, values)
	case c.Expiry == state.Keep && !row.expired:
		b.keeping = append(b.keeping, values)
	default:
		b.setting = append(b.setting, values)
	}
}

// The rows replaced are locked, so that their versions are known: the insert always meets its duplicate.
const replaceValues = " ON DUPLICATE KEY UPDATE created_at = IF(VALUES(version) = 1, VALUES(created_at), created_at), version = VALUES(version)," +
	" value = VALUES(value), etag = VALUES(etag), updated_at = VALUES(updated_at)"

func (b *batch) write(ctx context.Context) error {
	for _, step := range []struct {
		pattern string
		rows    []sqlstate.Expr
	}{
		{insertInto + "@", b.inserts},
		{insertInto + "@" + replaceValues + ", expires_at = VALUES(expires_at)", b.setting},
		{insertInto + "@" + replaceValues, b.keeping},
	} {
		for rows := range chunks(step.rows) {
			statement := sqlstate.SQL(b.engine.table.sql(step.pattern), sqlstate.Join(rows, ", "))
			if _, err := b.tx.ExecContext(ctx, statement.Text, statement.Args...); err != nil {
				return err
			}
		}
	}
	if len(b.removes) == 0 {
		return nil
	}
	statement := sqlstate.SQL(b.engine.table.sql("DELETE FROM {table} WHERE store = @ AND `key` IN (@)"),
		sqlstate.Bind(b.engine.store), sqlstate.Join(b.removes, ", "))
	if _, err := b.tx.ExecContext(ctx, statement.Text, statement.Args...); err != nil {
		return fmt.Errorf("deleting: %w", err)
	}
	return nil
}

// chunks splits rows so that a statement stays well below max_allowed_packet, whose default is 16 MiB on MariaDB, even
// if every byte of a value has to be escaped. The largest value, 4 MiB, is one chunk.
func chunks(rows []sqlstate.Expr) iter.Seq[[]sqlstate.Expr] {
	const most = 2 << 20
	return func(yield func([]sqlstate.Expr) bool) {
		size, begin := 0, 0
		for i, row := range rows {
			n := 0
			for _, arg := range row.Args {
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
