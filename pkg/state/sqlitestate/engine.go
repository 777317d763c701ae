package sqlitestate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// An engine is one store: the rows of a table that have its name.
type engine struct {
	driver *Driver
	table  *table
	store  string

	announcement *sqlstate.Announcement // nil: none

	indexes atomic.Pointer[[]sqlstate.Index] // those that are there
}

var (
	_ state.Engine  = (*engine)(nil)
	_ state.Querier = (*engine)(nil)
	_ state.Indexer = (*engine)(nil)
)

func (e *engine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	rows, err := e.selectKeys(ctx, keys, e.table.get, e.table.getMany)
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
	rows, err := e.selectKeys(ctx, keys, e.table.exists, e.table.existsMany) //nolint:rowserrcheck // PresentInOrder asks for it
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	present, err := sqlstate.PresentInOrder(keys, rows)
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	return present, nil
}

// selectKeys runs the statement for one key or the one for many, which takes them as a JSON array.
func (e *engine) selectKeys(ctx context.Context, keys []string, one, many *sql.Stmt) (*sql.Rows, error) {
	now := time.Now().UnixMicro()
	if len(keys) == 1 {
		return one.QueryContext(ctx, e.store, keys[0], now)
	}
	list, err := json.Marshal(keys)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", state.ErrInvalid, err)
	}
	return many.QueryContext(ctx, string(list), e.store, now)
}

func (e *engine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	if len(changes) != 1 {
		return e.writeAll(ctx, changes, false)
	}
	outcome, err := e.share(ctx, changes[0])
	if err != nil {
		return nil, err
	}
	return []state.Outcome{outcome}, nil
}

func (e *engine) Transact(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	return e.writeAll(ctx, changes, true)
}

func (e *engine) Len(ctx context.Context) (int64, error) {
	var n int64
	if err := e.table.count.QueryRowContext(ctx, e.store, time.Now().UnixMicro()).Scan(&n); err != nil {
		return 0, e.failure(ctx, err)
	}
	return n, nil
}

// scanRecords reads rows of columns to the end, and closes them.
func scanRecords(rows *sql.Rows) (_ []state.Record, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	var records []state.Record
	for rows.Next() {
		r := state.Record{Found: true}
		var created, updated int64
		var expires sql.NullInt64
		if err := rows.Scan(&r.Key, &r.Value, &r.ETag, &r.Version, &created, &updated, &expires); err != nil {
			return nil, err
		}
		r.CreatedAt, r.UpdatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
		if expires.Valid {
			r.ExpiresAt = time.UnixMicro(expires.Int64).UTC()
		}
		records = append(records, r)
	}
	return records, rows.Err()
}
