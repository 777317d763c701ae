package mysqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// expireDate is when a value expires that has so many microseconds to live, in the whole seconds of Dapr's column. It is rounded up: a
// value lives up to a second longer, and never less than it was to. Dapr rounds down.
const expireDate = "CURRENT_TIMESTAMP + INTERVAL CEIL((? + MICROSECOND(CURRENT_TIMESTAMP(6))) / 1000000) SECOND"

// Apply makes one change in a transaction that several callers share, several with one transaction.
func (e *daprEngine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	if len(changes) != 1 {
		return e.transact(ctx, changes, false)
	}
	outcome, err := share(ctx, e.gathering, changes[0])
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	return []state.Outcome{outcome}, nil
}

func (e *daprEngine) writeAlone(ctx context.Context, call *sqlstate.Call[write]) error {
	return e.writeTogether(ctx, []*sqlstate.Call[write]{call})
}

func (e *daprEngine) writeTogether(ctx context.Context, calls []*sqlstate.Call[write]) error {
	return writeTogether(calls, func(changes []state.Change) ([]state.Outcome, error) { return e.transact(ctx, changes, false) })
}

// Transact makes the changes in one transaction.
func (e *daprEngine) Transact(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	return e.transact(ctx, changes, true)
}

// transact is that of engine, in Dapr's rows: they are locked in the order of their ids, and written with a few statements. The order is the
// one in which Dapr's own transactions come in nothing, so that a deadlock with one is possible; who loses it tries again.
func (e *daprEngine) transact(ctx context.Context, changes []state.Change, together bool) (outcomes []state.Outcome, err error) {
	if len(changes) == 0 {
		return nil, nil
	}
	f, err := e.ready(ctx)
	if err == nil {
		err = e.fits(f, changes)
	}
	if err == nil {
		err = e.announcement.prepare(ctx)
	}
	if err == nil {
		err = again(ctx, func() (err error) {
			outcomes, err = e.tryTransact(ctx, f, changes, together)
			return err
		})
	}
	if err != nil {
		return nil, e.failure(ctx, err) // until the commit, which speaks for itself, nothing has been changed
	}
	return outcomes, nil
}

// fits refuses ids for which the column has no room.
func (e *daprEngine) fits(f *daprForm, changes []state.Change) error {
	for i := range changes {
		if n := int64(utf8.RuneCountInString(e.prefix) + utf8.RuneCountInString(changes[i].Key)); n > f.keyChars && !changes[i].Delete {
			return fmt.Errorf("%w: key %q: it has %d characters with its prefix, and the column id of Dapr's table has room for %d", state.ErrInvalid, changes[i].Key, n, f.keyChars)
		}
	}
	return nil
}

func (e *daprEngine) tryTransact(ctx context.Context, f *daprForm, changes []state.Change, together bool) ([]state.Outcome, error) {
	t := changing{
		db: e.table.db, announcement: e.announcement,
		lock: func(ctx context.Context, tx *sql.Tx, changes []state.Change) (map[string]*row, error) {
			return e.lock(ctx, f, tx, changes)
		},
		write:   func(ctx context.Context, tx *sql.Tx, rows map[string]*row) error { return e.write(ctx, f, tx, rows) },
		collide: func(rows map[string]*row) error { return e.collide(f, absent(rows)) },
	}
	return t.try(ctx, changes, together)
}

// lock reads and locks the rows of all changes.
func (e *daprEngine) lock(ctx context.Context, f *daprForm, tx *sql.Tx, changes []state.Change) (_ map[string]*row, err error) {
	found := make(map[string]*row, len(changes))
	keys := make([]string, 0, len(changes))
	for i := range changes {
		if key := changes[i].Key; found[key] == nil {
			found[key] = &row{tag: daprETag}
			keys = append(keys, key)
		}
	}
	query := sqlstate.SQL(e.table.sql("SELECT id, eTag, "+daprLive+" FROM {table} WHERE id IN (@) ORDER BY id FOR UPDATE"), sqlstate.Binds(e.ids(keys)))
	rows, err := tx.QueryContext(ctx, query.Text, query.Args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id string
		r := row{stored: true, tag: daprETag}
		if err := rows.Scan(&id, &r.etag, &r.present); err != nil {
			return nil, err
		}
		key := strings.TrimPrefix(id, e.prefix)
		if found[key] == nil || !strings.HasPrefix(id, e.prefix) {
			i := slices.IndexFunc(keys, func(k string) bool { return alike(e.prefix+k, id) })
			return nil, e.foreignKey(keys[max(i, 0)], id, f.collated)
		}
		r.version = versionOf(r.etag)
		found[key] = &r
	}
	return found, rows.Err()
}

// absent are the keys of rows that are to be inserted.
func absent(rows map[string]*row) (keys []string) {
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		if r := rows[key]; r.changed && r.present && !r.stored {
			keys = append(keys, key)
		}
	}
	return keys
}

// alike reports whether two ids differ in nothing but case and blanks at the end, which most collations pass over.
func alike(a, b string) bool {
	return strings.EqualFold(strings.TrimRight(a, " "), strings.TrimRight(b, " "))
}

// collide says which two of the rows that are to be inserted the table takes for one.
func (e *daprEngine) collide(f *daprForm, inserts []string) error {
	for i, key := range inserts {
		if j := slices.IndexFunc(inserts[:i], func(other string) bool { return alike(other, key) }); j >= 0 {
			return e.foreignKey(key, e.prefix+inserts[j], f.collated)
		}
	}
	return nil
}

// write brings the rows to what their changes made of them.
func (e *daprEngine) write(ctx context.Context, f *daprForm, tx *sql.Tx, rows map[string]*row) error {
	var removes []string
	var inserts, setting, keeping [][]any
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		r := rows[key]
		if !r.changed {
			continue
		}
		if r.stored && (!r.present || r.created) { // what was there has expired, or was removed: nothing of it must shine through
			removes = append(removes, e.prefix+key)
		}
		if !r.present {
			continue
		}
		kept := daprStored([]byte(r.value), f.mariaDB)
		values := []any{e.prefix + key, kept.text, kept.binary, r.etag, r.toLive}
		switch {
		case !r.stored || r.created:
			inserts = append(inserts, values)
		case r.keeps:
			keeping = append(keeping, values)
		default:
			setting = append(setting, values)
		}
	}
	if len(removes) > 0 {
		statement := sqlstate.SQL(e.table.sql("DELETE FROM {table} WHERE id IN (@)"), sqlstate.Binds(removes))
		if _, err := tx.ExecContext(ctx, statement.Text, statement.Args...); err != nil {
			return fmt.Errorf("deleting: %w", err)
		}
	}
	const replace = " ON DUPLICATE KEY UPDATE value = VALUES(value), isbinary = VALUES(isbinary), eTag = VALUES(eTag), updateDate = CURRENT_TIMESTAMP"
	for _, step := range []struct {
		rows [][]any
		tail string
	}{{inserts, ""}, {setting, replace + ", expiredate = VALUES(expiredate)"}, {keeping, replace}} {
		for part := range chunks(step.rows) {
			const one = "(?, ?, ?, ?, " + expireDate + ")"
			text := e.table.sql("INSERT INTO {table} (id, value, isbinary, eTag, expiredate) VALUES ") + one + strings.Repeat(", "+one, len(part)-1) + step.tail //nolint:gosec // constants, and a name that was checked
			if _, err := tx.ExecContext(ctx, text, slices.Concat(part...)...); err != nil {
				if number(err) == badDate {
					return fmt.Errorf("%w: Dapr's table keeps times until January 2038: %w", state.ErrInvalid, err)
				}
				return err
			}
		}
	}
	return nil
}
