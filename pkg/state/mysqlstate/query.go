package mysqlstate

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Query evaluates the query on the server.
func (e *engine) Query(ctx context.Context, q state.Query) ([]state.Record, error) {
	query, err := e.selection(q)
	if err != nil {
		return nil, err
	}
	if _, err := e.table.prepared(ctx); err != nil {
		return nil, e.failure(ctx, err, reading)
	}
	rows, err := e.table.db.QueryContext(ctx, selectWithin(ctx)+query.Text, query.Args...)
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
	from, err := e.from(f)
	if err != nil {
		return 0, err
	}
	if _, err := e.table.prepared(ctx); err != nil {
		return 0, e.failure(ctx, err, reading)
	}
	query := sqlstate.SQL("COUNT(*) FROM @", from)
	var n int64
	if err := e.table.db.QueryRowContext(ctx, selectWithin(ctx)+query.Text, query.Args...).Scan(&n); err != nil {
		return 0, e.failure(ctx, err, reading)
	}
	return n, nil
}

// selection is the statement of a query after its SELECT.
func (e *engine) selection(q state.Query) (expr, error) {
	from, err := e.from(q.Filter)
	if err != nil {
		return expr{}, err
	}
	order, err := sqlstate.OrderBy(q.Sort, "e.`key`", e.orderAt)
	if err != nil {
		return expr{}, err
	}
	if q.After != nil {
		after, err := sqlstate.After(dialect{}, document(), q.Sort, "e.`key`", q.After)
		if err != nil {
			return expr{}, err
		}
		from = sqlstate.SQL("@ AND @", from, after)
	}
	limit := int64(math.MaxInt64) // all: an offset needs a limit
	if q.Limit > 0 {
		limit = int64(q.Limit)
	}
	return sqlstate.SQL(columns+" FROM @ ORDER BY @ LIMIT @ OFFSET @", from, order, sqlstate.Bind(limit), sqlstate.Bind(q.Offset)), nil
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

// from is the table and the condition on its rows.
func (e *engine) from(f state.Filter) (expr, error) {
	source := sqlstate.SQL(e.table.sql("{table} e WHERE e.store = @"), sqlstate.Bind(e.store))
	if p, ok := sqlstate.Choose(dialect{}, e.indexed(), f); ok {
		var err error
		if source, err = e.found(p); err != nil {
			return expr{}, err
		}
		if p.Exact {
			f = p.Rest
		}
	}
	matches, err := sqlstate.Where(dialect{}, document(), f)
	if err != nil {
		return expr{}, err
	}
	return sqlstate.SQL("@ AND "+live+" AND (@)", source, matches), nil
}

// found is the rows that an index leads to. The server is told to read the index, as it would at times rather read the whole
// store, or merge the index with another.
func (e *engine) found(p *sqlstate.Plan) (expr, error) {
	served, err := sqlstate.Where(dialect{}, document(), p.Served)
	if err != nil {
		return expr{}, err
	}
	kind := column(p.Index, "k")
	var either []expr
	for _, r := range p.Ranges {
		in := sqlstate.SQL("@ = "+strconv.Itoa(r.Kind), kind)
		if r.Kind == int(state.RankString) {
			in = sqlstate.SQL("@ AND @ IS NULL", in, column(p.Index, "n")) // it stands before the text in the index
		}
		if r.When.Text != "" {
			in = sqlstate.SQL("@ AND @", in, r.When)
		}
		either = append(either, sqlstate.SQL("(@)", in))
	}
	for _, k := range sqlstate.Composites(p.Index) {
		either = append(either, sqlstate.SQL("(@ = "+strconv.Itoa(k)+" AND (@))", kind, served))
	}
	return sqlstate.SQL(e.table.sql("{table} e FORCE INDEX ("+indexName(p.Index)+") WHERE e.store = @ AND (@)"), sqlstate.Bind(e.store),
		sqlstate.Join(either, " OR ")), nil
}

// orderAt is what to order by for what is at a path. Where there is an index, its columns spare most of the work.
func (e *engine) orderAt(path []string) []expr {
	for _, ix := range e.indexed() {
		if !slices.Equal(ix.Path, path) {
			continue
		}
		at := dialect{}.At(document(), ix.JSONPath())
		kind, number := column(ix, "k"), column(ix, "n")
		return []expr{
			sqlstate.SQL("CASE @ WHEN "+strconv.Itoa(sqlstate.KindPassed)+" THEN 0 ELSE @ END", kind, kind),
			number,
			sqlstate.SQL("CASE WHEN @ = 1 AND ABS(@) >= "+strconv.Itoa(exactBelow)+" THEN @ END", kind, number, integer(at)),
			sqlstate.SQL("CASE WHEN @ = 2 THEN @ END", kind, content(at)),
		}
	}
	return sqlstate.OrderAt(dialect{}, document(), path)
}
