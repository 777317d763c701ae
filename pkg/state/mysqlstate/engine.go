package mysqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// An engine is one store: the rows of a table that have its name.
type engine struct {
	table     *table
	store     string
	gathering *sqlstate.Gathering[write] // of single changes
	replica   *replica                   // nil: none
}

var (
	_ state.Engine  = (*engine)(nil)
	_ state.Querier = (*engine)(nil)
)

func (e *engine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	s, err := e.table.prepared(ctx)
	if err != nil {
		return nil, e.failure(ctx, err, reading)
	}
	rows, err := e.selectKeys(ctx, keys, s.get, columns)
	if err != nil {
		return nil, e.failure(ctx, err, reading)
	}
	found, err := scanRecords(rows)
	if err != nil {
		return nil, e.failure(ctx, err, reading)
	}
	return sqlstate.InOrder(keys, found), nil
}

func (e *engine) Exists(ctx context.Context, keys []string) ([]bool, error) {
	s, err := e.table.prepared(ctx)
	if err != nil {
		return nil, e.failure(ctx, err, reading)
	}
	rows, err := e.selectKeys(ctx, keys, s.exists, "e.`key`") //nolint:rowserrcheck // PresentInOrder asks for it
	if err != nil {
		return nil, e.failure(ctx, err, reading)
	}
	present, err := sqlstate.PresentInOrder(keys, rows)
	if err != nil {
		return nil, e.failure(ctx, err, reading)
	}
	return present, nil
}

// selectKeys runs the prepared statement for one key, or selects the columns for many.
func (e *engine) selectKeys(ctx context.Context, keys []string, one *sql.Stmt, columns string) (*sql.Rows, error) {
	if len(keys) == 1 {
		return one.QueryContext(ctx, e.store, keys[0])
	}
	if len(keys) == 0 {
		keys = []string{""} // no key is empty
	}
	query := sqlstate.SQL(e.table.sql("SELECT "+columns+" FROM {table} e WHERE e.store = @ AND e.`key` IN (@) AND "+live),
		sqlstate.Bind(e.store), sqlstate.Binds(keys))
	return e.table.db.QueryContext(ctx, query.Text, query.Args...)
}

func (e *engine) Len(ctx context.Context) (int64, error) {
	s, err := e.table.prepared(ctx)
	if err != nil {
		return 0, e.failure(ctx, err, reading)
	}
	var n int64
	if err := s.count.QueryRowContext(ctx, e.store, e.store).Scan(&n); err != nil {
		return 0, e.failure(ctx, err, reading)
	}
	return n, nil
}

// Query evaluates the query on the server.
func (e *engine) Query(ctx context.Context, q state.Query) ([]state.Record, error) {
	where, err := e.where(q.Filter)
	if err != nil {
		return nil, err
	}
	order, err := sqlstate.OrderBy(dialect{}, document(), q.Sort, "e.`key`")
	if err != nil {
		return nil, err
	}
	limit := int64(math.MaxInt64) // all: an offset needs a limit
	if q.Limit > 0 {
		limit = int64(q.Limit)
	}
	if _, err := e.table.prepared(ctx); err != nil {
		return nil, e.failure(ctx, err, reading)
	}
	query := sqlstate.SQL(e.table.sql(selectWithin(ctx)+columns+" FROM {table} e WHERE @ ORDER BY @ LIMIT @ OFFSET @"),
		where, order, sqlstate.Bind(limit), sqlstate.Bind(q.Offset))
	rows, err := e.table.db.QueryContext(ctx, query.Text, query.Args...)
	if err != nil {
		return nil, e.failure(ctx, err, reading)
	}
	records, err := scanRecords(rows)
	if err != nil {
		return nil, e.failure(ctx, err, reading)
	}
	return records, nil
}

// Count evaluates the filter on the server.
func (e *engine) Count(ctx context.Context, f state.Filter) (int64, error) {
	where, err := e.where(f)
	if err != nil {
		return 0, err
	}
	if _, err := e.table.prepared(ctx); err != nil {
		return 0, e.failure(ctx, err, reading)
	}
	query := sqlstate.SQL(e.table.sql(selectWithin(ctx)+"COUNT(*) FROM {table} e WHERE @"), where)
	var n int64
	if err := e.table.db.QueryRowContext(ctx, query.Text, query.Args...).Scan(&n); err != nil {
		return 0, e.failure(ctx, err, reading)
	}
	return n, nil
}

// selectWithin begins a SELECT that the server gives up soon after the context's deadline. Without it the server goes on
// with a query that nobody waits for any more. MySQL reads the hint, and MariaDB the comment that is for it alone.
func selectWithin(ctx context.Context) string {
	deadline, ok := ctx.Deadline()
	if !ok {
		return "SELECT "
	}
	left := min(max(time.Until(deadline), 0)+100*time.Millisecond, 24*time.Hour) // a little more, so that the context ends first
	return fmt.Sprintf("/*M! SET STATEMENT max_statement_time=%.3f FOR */ SELECT /*+ MAX_EXECUTION_TIME(%d) */ ", left.Seconds(), left.Milliseconds())
}

func (e *engine) where(f state.Filter) (sqlstate.Expr, error) {
	matches, err := sqlstate.Where(dialect{}, document(), f)
	if err != nil {
		return sqlstate.Expr{}, err
	}
	return sqlstate.SQL("e.store = @ AND "+live+" AND (@)", sqlstate.Bind(e.store), matches), nil
}

func (e *engine) failure(ctx context.Context, err error, d doing) error { //nolint:unparam // a write through it says so
	return fmt.Errorf("store %q: %w", e.store, failure(ctx, err, d))
}

// scanRecords reads rows of columns to the end, and closes them.
func scanRecords(rows *sql.Rows) (_ []state.Record, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	var records []state.Record
	for rows.Next() {
		r := state.Record{Found: true}
		var expires sql.Null[time.Time]
		if err := rows.Scan(&r.Key, &r.Value, &r.ETag, &r.Version, &r.CreatedAt, &r.UpdatedAt, &expires); err != nil {
			return nil, err
		}
		r.ExpiresAt = expires.V
		records = append(records, r)
	}
	return records, rows.Err()
}
