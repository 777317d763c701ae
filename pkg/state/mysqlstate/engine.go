package mysqlstate

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
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
	var found []state.Record
	err := e.ofKeys(ctx, keys, columns, func(row []driver.Value) error {
		record, err := recordOf(row)
		found = append(found, record)
		return err
	})
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	return sqlstate.InOrder(keys, found), nil
}

func (e *engine) Exists(ctx context.Context, keys []string) ([]bool, error) {
	present, err := sqlstate.Present(keys, func(row func([]driver.Value) error) error {
		return e.ofKeys(ctx, keys, "e.`key`", row)
	})
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	return present, nil
}

// ofKeys selects the columns of one key or of many.
func (e *engine) ofKeys(ctx context.Context, keys []string, what string, row func([]driver.Value) error) error {
	s, err := e.table.prepared(ctx)
	if err != nil {
		return err
	}
	if len(keys) == 1 {
		text := s.get
		if what != columns {
			text = s.exists
		}
		return sqlstate.Read(ctx, e.table.db, text, []any{e.store, keys[0]}, row)
	}
	if len(keys) == 0 {
		keys = []string{""} // no key is empty
	}
	query := sqlstate.SQL(e.table.sql("SELECT "+what+" FROM {table} e WHERE e.store = @ AND e.`key` IN (@) AND "+live),
		sqlstate.Bind(e.store), sqlstate.Binds(keys))
	return sqlstate.ReadOnce(ctx, e.table.db, query.Text, query.Args, row)
}

// failure is what went wrong with a read.
func (e *engine) failure(ctx context.Context, err error) error {
	return fmt.Errorf("store %q: %w", e.store, failure(ctx, err, reading))
}

// recordOf is a row of columns as the driver has it.
func recordOf(row []driver.Value) (state.Record, error) {
	value, ok1 := row[1].([]byte)
	version, ok2 := row[3].(int64)
	created, ok3 := row[4].(time.Time)
	updated, ok4 := row[5].(time.Time)
	expires, ok5 := row[6].(time.Time)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 && row[6] != nil {
		return state.Record{}, fmt.Errorf("%w: the row of key %q has columns of other types than the table", state.ErrCorrupt, sqlstate.Text(row[0]))
	}
	return state.Record{Found: true, Key: sqlstate.Text(row[0]), Value: slices.Clone(value), ETag: sqlstate.Text(row[2]), Version: version,
		CreatedAt: created, UpdatedAt: updated, ExpiresAt: expires}, nil
}
