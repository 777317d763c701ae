package mysqlstate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Apply makes one change with one statement or in a transaction that several callers share, several with one transaction.
func (e *engine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	if len(changes) != 1 {
		return e.transact(ctx, changes, false)
	}
	outcome, err := share(ctx, e.gathering, changes[0])
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	return []state.Outcome{outcome}, nil
}

// maxTries bounds how often a change is tried that met a deadlock, a lock that was not given up in time, or a row that
// came and went meanwhile. All of them are normal and leave nothing behind.
const maxTries = 12

// errRaced asks for another try: what was read of a row no longer held when it was written.
var errRaced = errors.New("the row changed meanwhile")

// retry runs a change of the table, when that is there.
func (e *engine) retry(ctx context.Context, run func(*statements) error) error {
	s, err := e.table.prepared(ctx)
	if err != nil {
		return err
	}
	return again(ctx, func() error { return run(s) })
}

// again runs a change, from its beginning, until it succeeds or fails for good.
func again(ctx context.Context, run func() error) error {
	for try := 1; ; try++ {
		err := run()
		if n := number(err); err == nil || n != deadlock && n != lockWaitTimeout && !errors.Is(err, errRaced) {
			return err
		}
		if try == maxTries {
			return fmt.Errorf("%w: other changes were in the way %d times: %w", state.ErrUnavailable, try, err)
		}
		pause := time.NewTimer(rand.N(time.Millisecond << min(try, 7))) //nolint:gosec // spreads writers, guards nothing; on average 1, 2, 4 ... 64 ms
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return unavailable(ctx, ctx.Err())
		}
	}
}

// change makes one change whose condition is part of its statement.
func (e *engine) change(ctx context.Context, s *statements, c *state.Change) (state.Outcome, error) {
	if c.Delete {
		return e.remove(ctx, s, c)
	}
	switch c.When {
	case state.IfAbsent:
		return e.create(ctx, s, c)
	case state.IfETag:
		return e.update(ctx, s, c)
	default:
		return e.save(ctx, s, c)
	}
}

// save writes a row, whether there was one or not.
func (e *engine) save(ctx context.Context, s *statements, c *state.Change) (state.Outcome, error) {
	outcome := state.Outcome{Done: true, ETag: sqlstate.NewETag(), Version: 1}
	result, err := s.save.ExecContext(ctx, e.store, c.Key, text(c), outcome.ETag, toLive(c), c.Expiry == state.Keep)
	if err != nil {
		return state.Outcome{}, err
	}
	n, err := result.RowsAffected()
	if err == nil && n != 1 { // 1: a new row; 2: there was one
		outcome.Version, err = result.LastInsertId()
	}
	return outcome, err
}

// create inserts a row. One in its way that has expired is replaced.
func (e *engine) create(ctx context.Context, s *statements, c *state.Change) (state.Outcome, error) {
	outcome := state.Outcome{Done: true, ETag: sqlstate.NewETag(), Version: 1}
	_, err := s.insert.ExecContext(ctx, e.store, c.Key, text(c), outcome.ETag, toLive(c))
	if number(err) != duplicateKey {
		return outcome, err
	}
	result, err := s.replace.ExecContext(ctx, text(c), outcome.ETag, toLive(c), e.store, c.Key)
	if err != nil {
		return state.Outcome{}, err
	}
	n, err := result.RowsAffected()
	if err != nil || n == 1 {
		return outcome, err
	}
	outcome, err = e.refused(ctx, c)
	if outcome.Absent {
		return state.Outcome{}, errRaced // it was there, and is gone
	}
	return outcome, err
}

func (e *engine) update(ctx context.Context, s *statements, c *state.Change) (state.Outcome, error) {
	outcome := state.Outcome{Done: true, ETag: sqlstate.NewETag()}
	result, err := s.update.ExecContext(ctx, text(c), outcome.ETag, c.Expiry == state.Keep, toLive(c), e.store, c.Key, c.ETag)
	if err != nil {
		return state.Outcome{}, err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		return e.refused(ctx, c)
	}
	if err == nil {
		outcome.Version, err = result.LastInsertId()
	}
	return outcome, err
}

func (e *engine) remove(ctx context.Context, s *statements, c *state.Change) (state.Outcome, error) {
	stmt, args := s.remove, []any{e.store, c.Key}
	if c.When == state.IfETag {
		stmt, args = s.removeETag, append(args, c.ETag)
	}
	result, err := stmt.ExecContext(ctx, args...)
	if err != nil {
		return state.Outcome{}, err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 && c.When == state.IfETag {
		return e.refused(ctx, c)
	}
	return state.Outcome{Done: n > 0}, err
}

// refused is the outcome of a change whose condition did not hold.
func (e *engine) refused(ctx context.Context, c *state.Change) (state.Outcome, error) {
	present, err := e.Exists(ctx, []string{c.Key})
	if err != nil {
		return state.Outcome{}, err
	}
	return state.Outcome{Conflict: true, Absent: !present[0]}, nil
}

// text is the value as the table keeps it.
func text(c *state.Change) string { return string(sqlstate.PlainNames(c.Value)) }

// toLive is the microseconds that a value has, nil when it does not expire.
func toLive(c *state.Change) any {
	if ttl, ok := c.Expiry.TTL(); ok {
		return ttl.Microseconds()
	}
	return nil
}
