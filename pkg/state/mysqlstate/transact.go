package mysqlstate

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Transact makes the changes in one transaction.
func (e *engine) Transact(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	return e.transact(ctx, changes, true)
}

// transact locks the rows there are, decides for each change whether its condition holds, and writes what comes of them
// with a few statements of many rows. A key may appear in several changes. With together, a condition that does not hold
// undoes them all.
func (e *engine) transact(ctx context.Context, changes []state.Change, together bool) ([]state.Outcome, error) {
	if len(changes) == 0 {
		return nil, nil
	}
	var outcomes []state.Outcome
	err := e.announcement.prepare(ctx)
	if err == nil {
		err = e.retry(ctx, func(s *statements) (err error) {
			outcomes, err = e.tryTransact(ctx, s, changes, together)
			return err
		})
	}
	if err != nil {
		// Until the commit, which speaks for itself, nothing has been changed.
		return nil, e.failure(ctx, err)
	}
	return outcomes, nil
}

func (e *engine) tryTransact(ctx context.Context, s *statements, changes []state.Change, together bool) ([]state.Outcome, error) {
	t := changing{db: e.table.db, announcement: e.announcement, lock: e.lock, write: func(ctx context.Context, tx *sql.Tx, rows map[string]*row) error {
		b := batch{engine: e, statements: s, tx: tx}
		for _, key := range slices.Sorted(maps.Keys(rows)) {
			b.add(key, rows[key])
		}
		return b.write(ctx)
	}}
	return t.try(ctx, changes, together)
}

// A changing makes changes in one transaction, in the rows of one kind of table: those of this driver's own, or Dapr's.
type changing struct {
	db           *sql.DB
	announcement *announcement // nil: none
	lock         func(ctx context.Context, tx *sql.Tx, changes []state.Change) (map[string]*row, error)
	write        func(ctx context.Context, tx *sql.Tx, rows map[string]*row) error
	collide      func(rows map[string]*row) error // why rows that are to be inserted can never be; nil, or nil of it: they can
}

// try makes them once. An error errRaced asks for another try.
func (t *changing) try(ctx context.Context, changes []state.Change, together bool) ([]state.Outcome, error) {
	tx, err := t.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	rows, err := t.lock(ctx, tx, changes)
	if err != nil {
		return nil, err
	}
	outcomes := make([]state.Outcome, len(changes))
	conflict := false
	for i := range changes {
		outcomes[i] = rows[changes[i].Key].apply(&changes[i])
		conflict = conflict || outcomes[i].Conflict
	}
	if together && conflict {
		for i := range outcomes {
			if !outcomes[i].Conflict {
				outcomes[i] = state.Outcome{}
			}
		}
		return outcomes, nil
	}
	err = t.write(ctx, tx, rows)
	if err == nil {
		err = t.announcement.add(ctx, tx, changes, outcomes)
	}
	if err == nil && t.announcement != nil {
		err = t.stillAbsent(ctx, tx, changes, rows)
	}
	switch {
	case err == nil:
		return outcomes, commit(ctx, tx)
	case number(err) != duplicateKey:
		return nil, err
	case t.collide != nil:
		return nil, cmp.Or(t.collide(rows), errRaced)
	default:
		return nil, errRaced // a row that was absent is there now
	}
}

// stillAbsent asks for another try when there is a row now of a key that was absent, and that these changes made and removed again: nothing of that
// was written, which would have found out. Their entries come after those of whoever made the row, and would say that it is gone.
func (t *changing) stillAbsent(ctx context.Context, tx *sql.Tx, changes []state.Change, rows map[string]*row) error {
	var passing []state.Change
	for _, c := range changes {
		if r := rows[c.Key]; r.changed && !r.stored && !r.present {
			passing = append(passing, c)
		}
	}
	if len(passing) == 0 {
		return nil
	}
	now, err := t.lock(ctx, tx, passing)
	if err != nil {
		return err
	}
	for _, r := range now {
		if r.stored {
			return errRaced
		}
	}
	return nil
}

// commit ends a transaction. Its errors say themselves when it is unknown what became of it.
func commit(ctx context.Context, tx *sql.Tx) error {
	err := tx.Commit()
	var sent *commitError
	switch n := number(err); {
	case errors.As(err, &sent):
		return outcomeUnknown(ctx, sent.err)
	case err == nil, n == deadlock, n == lockWaitTimeout, n == 0:
		return err // the commit did not begin, or was refused
	default:
		return failure(ctx, err, writing)
	}
}

// lock reads and locks the rows of all changes, in the order of their keys, so that transactions do not wait for each
// other in a circle. Under READ COMMITTED a row that is absent is not locked: its insert finds out.
func (e *engine) lock(ctx context.Context, tx *sql.Tx, changes []state.Change) (_ map[string]*row, err error) {
	found := make(map[string]*row, len(changes))
	keys := make([]string, 0, len(changes))
	for i := range changes {
		if key := changes[i].Key; found[key] == nil {
			found[key] = &row{}
			keys = append(keys, key)
		}
	}
	query := sqlstate.SQL(e.table.sql("SELECT e.`key`, e.etag, e.version, "+live+" FROM {table} e WHERE e.store = @ AND e.`key` IN (@) ORDER BY e.`key` FOR UPDATE"),
		sqlstate.Bind(e.store), sqlstate.Binds(keys))
	rows, err := tx.QueryContext(ctx, query.Text, query.Args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var key string
		r := row{stored: true}
		if err := rows.Scan(&key, &r.etag, &r.version, &r.present); err != nil {
			return nil, err
		}
		found[key] = &r
	}
	return found, rows.Err()
}

// A row is what stands under a key: at first as the transaction found and locked it, then as its changes leave it.
type row struct {
	stored  bool // it is in the table, expired or not
	present bool // it is there to callers
	etag    string
	version int64

	changed bool
	created bool   // by this transaction
	keeps   bool   // the expiry that it has in the table
	toLive  any    // microseconds, or nil
	value   string // as the table keeps it

	tag func(version int64) string // of a value written; nil: one that says nothing of the version
}

// apply makes one change to the row, if its condition holds.
func (r *row) apply(c *state.Change) state.Outcome {
	switch {
	case c.When == state.IfETag && (!r.present || r.etag != c.ETag), c.When == state.IfAbsent && r.present:
		return state.Outcome{Conflict: true, Absent: !r.present}
	case c.Delete && !r.present:
		return state.Outcome{}
	case c.Delete:
		r.changed, r.present = true, false
		return state.Outcome{Done: true}
	}
	switch {
	case c.Expiry != state.Keep || !r.present:
		r.keeps, r.toLive = false, toLive(c)
	case !r.changed:
		r.keeps = true
	}
	if !r.present {
		r.created, r.version = true, 0
	}
	r.changed, r.present = true, true
	r.version, r.value = r.version+1, text(c)
	if r.tag == nil {
		r.etag = sqlstate.NewETag()
	} else {
		r.etag = r.tag(r.version)
	}
	return state.Outcome{Done: true, ETag: r.etag, Version: r.version}
}
