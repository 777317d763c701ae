package mysqlstate

import (
	"context"
	"database/sql/driver"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Query evaluates the query on the server, by what indexes keep alone when that is enough.
func (e *engine) Query(ctx context.Context, q state.Query) ([]state.Record, error) {
	if _, err := e.table.prepared(ctx); err != nil {
		return nil, e.failure(ctx, err)
	}
	p, planned := sqlstate.Choose(dialect{}, e.indexed(), q.Filter)
	arrays := planned && p.Index.Doubtful()
	if planned && !arrays && ofFew(p, q) && !p.Index.Crowded() {
		records, all, err := e.readFew(ctx, p, q)
		if all || err != nil {
			return records, err
		}
	}
	if !arrays {
		if quick, ok, err := e.quickly(p, q); err != nil {
			return nil, err
		} else if ok {
			records, doubtful, err := e.read(ctx, quick)
			if err != nil || !doubtful {
				return records, err
			}
		}
	}
	query, err := e.selection(q)
	if err != nil {
		return nil, err
	}
	records, _, err := e.read(ctx, query)
	return records, err
}

// read runs a selection. doubtful is that of one of the records.
func (e *engine) read(ctx context.Context, query expr) (records []state.Record, doubtful bool, err error) {
	err = sqlstate.Read(ctx, e.table.db, selectWithin(ctx)+query.Text, query.Args, func(row []driver.Value) error {
		record, err := recordOf(row)
		doubt, _ := row[len(row)-1].(int64)
		records, doubtful = append(records, record), doubtful || doubt != 0
		return err
	})
	if err != nil {
		return nil, false, e.failure(ctx, e.corrupt(ctx, err))
	}
	return records, doubtful, nil
}

// corrupt is the error of a query that met a value which is no JSON, with its key. MariaDB takes such a value for one that does not match.
func (e *engine) corrupt(ctx context.Context, err error) error {
	if n := number(err); n != invalidJSONText && n != invalidJSONKept {
		return err
	}
	return sqlstate.Damaged(ctx, e.table.db, e.table.sql("SELECT `key` FROM {table} WHERE store = ? AND NOT JSON_VALID(value) LIMIT 1"), e.store, err)
}

// Count evaluates the filter on the server.
func (e *engine) Count(ctx context.Context, f state.Filter) (int64, error) {
	from, err := e.from(f)
	if err != nil {
		return 0, err
	}
	if _, err := e.table.prepared(ctx); err != nil {
		return 0, e.failure(ctx, err)
	}
	query := sqlstate.SQL("COUNT(*) FROM @", from)
	n, err := sqlstate.CountOf(func(row func([]driver.Value) error) error {
		return sqlstate.Read(ctx, e.table.db, selectWithin(ctx)+query.Text, query.Args, row)
	})
	if err != nil {
		return 0, e.failure(ctx, e.corrupt(ctx, err))
	}
	return n, nil
}

// selection is the statement of a query after its SELECT. No row of it is doubtful.
func (e *engine) selection(q state.Query) (expr, error) {
	from, err := e.from(q.Filter)
	if err != nil {
		return expr{}, err
	}
	order, err := sqlstate.OrderBy(q.Sort, "e.`key`", e.orderAt)
	if err != nil {
		return expr{}, err
	}
	return selectFrom(sqlstate.SQL("FALSE"), from, order, q)
}

// quickly is a statement that asks less of the server than selection does: it takes all values with an array at an index
// for a match, and orders by what indexes keep. Its answer is right unless it has a row for which one of that might be
// wrong, which it says to be doubtful. Stores without such rows are the rule. A row that is left out cannot be the only
// doubtful one: what stands behind the limit comes after, and does not tie with, every row that is beyond doubt.
func (e *engine) quickly(p *sqlstate.Plan, q state.Query) (query expr, ok bool, err error) {
	doubts := []expr{sqlstate.SQL("FALSE")}
	planned := p != nil
	if planned && (!p.Exact || q.Offset > 0) {
		return expr{}, false, nil
	}
	order, err := sqlstate.OrderBy(q.Sort, "e.`key`", func(path []string) []expr {
		ix, there := e.indexOf(path)
		if !there {
			return sqlstate.OrderAt(dialect{}, document(), path)
		}
		kind, number, text := ix.Terms[termKind], ix.Terms[termNumber], ix.Terms[termText]
		doubts = append(doubts, sqlstate.SQL("COALESCE(ABS(@) >= "+strconv.Itoa(exactBelow)+", FALSE)", number),
			sqlstate.SQL("COALESCE(LENGTH(@) = "+strconv.Itoa(keptBytes)+", FALSE)", text))
		return []expr{rankIn(ix, kind), number, text}
	})
	if err != nil || !planned && len(doubts) == 1 {
		return expr{}, false, err
	}
	var from expr
	if !planned {
		from, err = e.from(q.Filter)
	} else {
		doubts = append(doubts, sqlstate.SQL("@ < 0", p.Index.Terms[termKind]))
		if p.Equal && len(q.Sort) == 0 { // the index has them in the order of their keys, those of composite kinds before the others
			order = sqlstate.SQL("@, @, @, e.`key`", p.Index.Terms[termKind], p.Index.Terms[termNumber], p.Index.Terms[termText])
		}
		from, err = e.fromRows(e.found(p, sqlstate.SQL("TRUE")), p.Rest)
	}
	if err != nil {
		return expr{}, false, err
	}
	query, err = selectFrom(sqlstate.SQL("(@)", sqlstate.Join(doubts, " OR ")), from, order, q)
	return query, true, err
}

func selectFrom(doubt, from, order expr, q state.Query) (expr, error) {
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
	return sqlstate.SQL(columns+", @ FROM @ ORDER BY @ LIMIT @ OFFSET @", doubt, from, order, sqlstate.Bind(limit), sqlstate.Bind(q.Offset)), nil
}

// selectWithin begins a SELECT that the server gives up soon after the context's deadline. Without it the server goes on
// with a query that nobody waits for any more. MySQL reads the hint, and MariaDB the comment that is for it alone. There are
// few such beginnings, so that statements can be kept prepared.
func selectWithin(ctx context.Context) string {
	deadline, ok := ctx.Deadline()
	if !ok {
		return "SELECT "
	}
	ms := inSteps(min(max(time.Until(deadline), 0)+100*time.Millisecond, 24*time.Hour).Milliseconds()) // a little more, so that the context ends first
	return fmt.Sprintf("/*M! SET STATEMENT max_statement_time=%.3f FOR */ SELECT /*+ MAX_EXECUTION_TIME(%d) */ ", float64(ms)/1000, ms)
}

// inSteps rounds up by a quarter at most.
func inSteps(n int64) int64 {
	step := int64(1)
	for n >= 8*step {
		step *= 2
	}
	return (n + step - 1) / step * step
}

// from is the table and the condition on its rows.
func (e *engine) from(f state.Filter) (expr, error) {
	p, ok := sqlstate.Choose(dialect{}, e.indexed(), f)
	if !ok {
		return e.fromRows(sqlstate.SQL(e.table.sql("{table} e WHERE e.store = @"), sqlstate.Bind(e.store)), f)
	}
	served, err := sqlstate.Where(dialect{}, document(), p.Served)
	if err != nil {
		return expr{}, err
	}
	if p.Exact {
		f = p.Rest
	}
	return e.fromRows(e.found(p, served), f)
}

// fromRows is the rows of a source that live and match.
func (e *engine) fromRows(source expr, f state.Filter) (expr, error) {
	matches, err := sqlstate.Where(dialect{}, document(), f)
	return sqlstate.SQL("@ AND "+live+" AND (@)", source, matches), err
}

// found is the rows that an index leads to; those with an array at it, when they are served. The server is told to read
// the index, as it would at times rather read the whole store, or merge the index with another.
func (e *engine) found(p *sqlstate.Plan, served expr) expr {
	kind := p.Index.Terms[termKind]
	var either []expr
	for _, r := range p.Ranges {
		in := sqlstate.SQL("@ = "+strconv.Itoa(r.Kind), kind)
		if r.Kind == int(state.RankString) {
			in = sqlstate.SQL("@ AND @ IS NULL", in, p.Index.Terms[termNumber]) // it stands before the text in the index
		}
		if r.When.Text != "" {
			in = sqlstate.SQL("@ AND @", in, r.When)
		}
		either = append(either, sqlstate.SQL("(@)", in))
	}
	for _, k := range composites(p.Index) {
		either = append(either, sqlstate.SQL("(@ = "+strconv.Itoa(k)+" AND (@))", kind, served))
	}
	return sqlstate.SQL(e.table.sql("{table} e FORCE INDEX ("+indexName(p.Index)+") WHERE e.store = @ AND (@)"), sqlstate.Bind(e.store),
		sqlstate.Join(either, " OR "))
}

// orderAt is what to order by for what is at a path. Where there is an index, its columns spare most of the work.
func (e *engine) orderAt(path []string) []expr {
	ix, there := e.indexOf(path)
	if !there {
		return sqlstate.OrderAt(dialect{}, document(), path)
	}
	at := dialect{}.At(document(), ix.JSONPath())
	kind, number := ix.Terms[termKind], ix.Terms[termNumber]
	return []expr{
		rankIn(ix, kind),
		number,
		sqlstate.SQL("CASE WHEN @ = 1 AND ABS(@) >= "+strconv.Itoa(exactBelow)+" THEN @ END", kind, number, integer(at)),
		sqlstate.SQL("CASE WHEN @ = 2 THEN @ END", kind, sorted(at)),
	}
}

// rankIn is the state.Rank of a kind: what an array is in the way of is missing.
func rankIn(ix sqlstate.Index, kind expr) expr {
	array := "CASE @ WHEN " + strconv.Itoa(kindArray) + " THEN " + strconv.Itoa(int(state.RankArray))
	if len(ix.Path) > 1 {
		array += " WHEN " + strconv.Itoa(kindPassed) + " THEN 0"
	}
	return sqlstate.SQL(array+" ELSE @ END", kind, kind)
}

// indexOf is the index of a path, if there is one.
func (e *engine) indexOf(path []string) (sqlstate.Index, bool) {
	for _, ix := range e.indexed() {
		if slices.Equal(ix.Path, path) {
			return ix, true
		}
	}
	return sqlstate.Index{}, false
}
