package sqlitestate

import (
	"context"
	"database/sql/driver"
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
	query, err := e.ofKeys(keys, e.table.get, e.table.getMany)
	if err != nil {
		return nil, err
	}
	found, err := e.read(ctx, query)
	if err != nil {
		return nil, err
	}
	return sqlstate.InOrder(keys, found), nil
}

func (e *engine) Exists(ctx context.Context, keys []string) ([]bool, error) {
	query, err := e.ofKeys(keys, e.table.exists, e.table.existsMany)
	if err != nil {
		return nil, err
	}
	present, err := sqlstate.Present(keys, func(row func([]driver.Value) error) error {
		return sqlstate.Read(ctx, e.table.reader, query.Text, query.Args, row)
	})
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	return present, nil
}

// ofKeys is the statement for one key or the one for many, which takes them as a JSON array.
func (e *engine) ofKeys(keys []string, one, many string) (expr, error) {
	now := time.Now().UnixMicro()
	if len(keys) == 1 {
		return expr{Text: one, Args: []any{e.store, keys[0], now}}, nil
	}
	list, err := json.Marshal(keys)
	if err != nil {
		return expr{}, fmt.Errorf("store %q: %w: %w", e.store, state.ErrInvalid, err)
	}
	return expr{Text: many, Args: []any{string(list), e.store, now}}, nil
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

// recordOf is a row of columns as the driver has it.
func recordOf(row []driver.Value) (state.Record, error) {
	key, ok1 := row[0].(string)
	value, ok2 := row[1].([]byte)
	etag, ok3 := row[2].(string)
	version, ok4 := row[3].(int64)
	created, ok5 := row[4].(int64)
	updated, ok6 := row[5].(int64)
	expires, ok7 := row[6].(int64)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || !ok7 && row[6] != nil {
		return state.Record{}, fmt.Errorf("%w: the row of key %q has columns of other types than the table", state.ErrCorrupt, key)
	}
	r := state.Record{Found: true, Key: key, Value: value, ETag: etag, Version: version,
		CreatedAt: time.UnixMicro(created).UTC(), UpdatedAt: time.UnixMicro(updated).UTC()}
	if ok7 {
		r.ExpiresAt = time.UnixMicro(expires).UTC()
	}
	return r, nil
}
