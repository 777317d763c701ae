package mysqlstate

import (
	"context"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// countTime bounds a count on the server where the caller's context does not.
const countTime = time.Minute

// countRows reads the index of expiries alone: the rows of the store that do not expire lie together in it, those that do
// are among those of the table's other stores. It reads what is committed and locks nothing.
const countRows = "SELECT (SELECT COUNT(*) FROM {table} e FORCE INDEX ({table}_expiry) WHERE e.expires_at IS NULL AND e.store = @)" +
	" + (SELECT COUNT(*) FROM {table} e FORCE INDEX ({table}_expiry) WHERE e.expires_at > UTC_TIMESTAMP(6) AND e.store = @)"

// Len implements state.Engine.
func (e *engine) Len(ctx context.Context) (int64, error) {
	if _, err := e.table.prepared(ctx); err != nil {
		return 0, e.failure(ctx, err)
	}
	left := countTime
	if deadline, bounded := ctx.Deadline(); bounded {
		left = min(left, time.Until(deadline))
	}
	query := sqlstate.SQL(atMost(left, e.table.sql(countRows)), sqlstate.Bind(e.store), sqlstate.Bind(e.store))
	var n int64
	if err := e.table.db.QueryRowContext(ctx, query.Text, query.Args...).Scan(&n); err != nil {
		return 0, e.failure(ctx, err)
	}
	return n, nil
}

// atMost has the server itself end a SELECT: it would go on for a caller who is gone. MySQL knows the hint, MariaDB the
// statement, which is a comment to MySQL.
func atMost(d time.Duration, query string) string {
	ms := max(d.Milliseconds(), 1)
	return fmt.Sprintf("/*M! SET STATEMENT max_statement_time=%d.%03d FOR */ SELECT /*+ MAX_EXECUTION_TIME(%d) */ %s",
		ms/1000, ms%1000, ms, query[len("SELECT "):])
}
