package mysqlstate

import (
	"context"

	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// countRows reads the index of expiries alone: the rows of the store that do not expire lie together in it, those that do
// are among those of the table's other stores. It reads what is committed and locks nothing.
const countRows = "(SELECT COUNT(*) FROM {table} e FORCE INDEX ({table}_expiry) WHERE e.expires_at IS NULL AND e.store = @)" +
	" + (SELECT COUNT(*) FROM {table} e FORCE INDEX ({table}_expiry) WHERE e.expires_at > UTC_TIMESTAMP(6) AND e.store = @)"

// Len implements state.Engine.
func (e *engine) Len(ctx context.Context) (int64, error) {
	if _, err := e.table.prepared(ctx); err != nil {
		return 0, e.failure(ctx, err)
	}
	query := sqlstate.SQL(selectWithin(ctx)+e.table.sql(countRows), sqlstate.Bind(e.store), sqlstate.Bind(e.store))
	var n int64
	if err := e.table.db.QueryRowContext(ctx, query.Text, query.Args...).Scan(&n); err != nil {
		return 0, e.failure(ctx, err)
	}
	return n, nil
}
