package mysqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
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

	announcement *announcement // nil: none

	indexes atomic.Pointer[[]sqlstate.Index] // those that are there
}

var (
	_ state.Engine  = (*engine)(nil)
	_ state.Querier = (*engine)(nil)
	_ state.Indexer = (*engine)(nil)
)

func (e *engine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	s, err := e.table.prepared(ctx)
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	rows, err := e.selectKeys(ctx, keys, s.get, columns)
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	found, err := scanRecords(rows)
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	return sqlstate.InOrder(keys, found), nil
}

func (e *engine) Exists(ctx context.Context, keys []string) ([]bool, error) {
	s, err := e.table.prepared(ctx)
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	rows, err := e.selectKeys(ctx, keys, s.exists, "e.`key`") //nolint:rowserrcheck // PresentInOrder asks for it
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	present, err := sqlstate.PresentInOrder(keys, rows)
	if err != nil {
		return nil, e.failure(ctx, err)
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
		return 0, e.failure(ctx, err)
	}
	var n int64
	if err := s.count.QueryRowContext(ctx, e.store, e.store).Scan(&n); err != nil {
		return 0, e.failure(ctx, err)
	}
	return n, nil
}

// failure is what went wrong with a read.
func (e *engine) failure(ctx context.Context, err error) error {
	return fmt.Errorf("store %q: %w", e.store, failure(ctx, err, reading))
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
