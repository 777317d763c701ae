package sqlitestate

import (
	"context"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

var _ state.Scanner = (*engine)(nil)

// Scan implements state.Scanner, in the order of the keys. A cursor is the last key of the answer before it.
func (e *engine) Scan(ctx context.Context, cursor string, limit int) ([]string, string, error) {
	rows, err := e.driver.reader.QueryContext(ctx, //nolint:rowserrcheck // KeysOf asks for it
		e.table.sql("SELECT e.key FROM {table} e WHERE e.store = ? AND e.key > ? AND "+live+" ORDER BY e.key LIMIT ?"),
		e.store, cursor, time.Now().UnixMicro(), limit)
	if err != nil {
		return nil, "", e.failure(ctx, err)
	}
	keys, next, err := sqlstate.KeysOf(rows, limit)
	if err != nil {
		return nil, "", e.failure(ctx, err)
	}
	return keys, next, nil
}
