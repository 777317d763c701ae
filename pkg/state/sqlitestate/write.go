package sqlitestate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// writeAll makes changes in one transaction of the one writing connection, which is where every change of the file passes.
// With together, a condition that does not hold undoes them all.
func (e *engine) writeAll(ctx context.Context, changes []state.Change, together bool) ([]state.Outcome, error) {
	outcomes := make([]state.Outcome, len(changes))
	err := e.driver.transact(ctx, func(tx *sql.Tx) (err error) {
		conflict := false
		now := time.Now()
		for i := range changes {
			if outcomes[i], err = e.change(ctx, tx, &changes[i], now); err != nil {
				return fmt.Errorf("key %q: %w", changes[i].Key, err)
			}
			conflict = conflict || outcomes[i].Conflict
		}
		if together && conflict {
			return errUndone
		}
		if e.announcement != nil {
			return e.announcement.Add(ctx, tx, changes, outcomes)
		}
		return nil
	})
	if errors.Is(err, errUndone) {
		for i := range outcomes {
			if !outcomes[i].Conflict {
				outcomes[i] = state.Outcome{}
			}
		}
		return outcomes, nil
	}
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	return outcomes, nil
}

// errUndone ends a transaction because the condition of one of its changes did not hold.
var errUndone = errors.New("a condition did not hold")

// commit ends a transaction. Its errors are those that callers see.
func commit(ctx context.Context, tx *sql.Tx) error {
	if err := ctx.Err(); err != nil {
		return failure(ctx, err) // Commit would say so too, but not that nothing was changed
	}
	err := tx.Commit()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrTxDone) || ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return failure(ctx, err) // the context ended before the commit began
	case resultCode(err) == sqlite3.SQLITE_FULL:
		return failure(ctx, err) // its last page could not be written, and it was rolled back
	default:
		return fmt.Errorf("%w: %w", state.ErrOutcomeUnknown, err)
	}
}

// change makes one change within the transaction.
func (e *engine) change(ctx context.Context, tx *sql.Tx, c *state.Change, now time.Time) (state.Outcome, error) {
	if c.Delete {
		return e.remove(ctx, tx, c, now)
	}
	var expires any
	if ttl, ok := c.Expiry.TTL(); ok {
		expires = now.Add(ttl).UnixMicro()
	}
	var stmt *sql.Stmt
	switch c.When {
	case state.IfAbsent:
		stmt = e.table.saveAbsent
	case state.IfETag:
		stmt = e.table.saveETag
	default:
		stmt = e.table.save
	}
	outcome := state.Outcome{Done: true, ETag: sqlstate.NewETag()}
	args := []any{e.store, c.Key, string(c.Value), outcome.ETag, now.UnixMicro(), expires, c.Expiry == state.Keep}
	if c.When == state.IfETag {
		args = append(args, c.ETag)
	}
	err := tx.StmtContext(ctx, stmt).QueryRowContext(ctx, args...).Scan(&outcome.Version)
	if errors.Is(err, sql.ErrNoRows) {
		return e.refused(ctx, tx, c, now)
	}
	return outcome, err
}

func (e *engine) remove(ctx context.Context, tx *sql.Tx, c *state.Change, now time.Time) (state.Outcome, error) {
	stmt, args := e.table.remove, []any{e.store, c.Key, now.UnixMicro()}
	if c.When == state.IfETag {
		stmt, args = e.table.removeETag, append(args, c.ETag)
	}
	result, err := tx.StmtContext(ctx, stmt).ExecContext(ctx, args...)
	if err != nil {
		return state.Outcome{}, err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 && c.When == state.IfETag {
		return e.refused(ctx, tx, c, now)
	}
	return state.Outcome{Done: n > 0}, err
}

// refused is the outcome of a change whose condition did not hold.
func (e *engine) refused(ctx context.Context, tx *sql.Tx, c *state.Change, now time.Time) (state.Outcome, error) {
	var key string
	err := tx.StmtContext(ctx, e.table.present).QueryRowContext(ctx, e.store, c.Key, now.UnixMicro()).Scan(&key)
	if errors.Is(err, sql.ErrNoRows) {
		return state.Outcome{Conflict: true, Absent: true}, nil
	}
	return state.Outcome{Conflict: true}, err
}
