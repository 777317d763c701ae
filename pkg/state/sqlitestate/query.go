package sqlitestate

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Query evaluates the query in SQLite.
func (e *engine) Query(ctx context.Context, q state.Query) ([]state.Record, error) {
	query, err := e.selection(q)
	if err != nil {
		return nil, err
	}
	rows, err := e.table.queries.Query(ctx, query.Text, query.Args...)
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	records, err := scanRecords(rows)
	if err != nil {
		return nil, e.failure(ctx, err)
	}
	return records, nil
}

// Count evaluates the filter in SQLite.
func (e *engine) Count(ctx context.Context, f state.Filter) (int64, error) {
	from, err := e.from(f)
	if err != nil {
		return 0, err
	}
	query, err := bounded(sqlstate.SQL("SELECT count(*) FROM @", from))
	if err != nil {
		return 0, err
	}
	rows, err := e.table.queries.Query(ctx, query.Text, query.Args...) //nolint:rowserrcheck // Number asks for it
	if err != nil {
		return 0, e.failure(ctx, err)
	}
	n, err := sqlstate.Number(rows)
	if err != nil {
		return 0, e.failure(ctx, err)
	}
	return n, nil
}

// selection is the statement of a query. An index that the filter can begin with comes first; else, when not all rows are
// asked for, one that has them in order.
func (e *engine) selection(q state.Query) (expr, error) {
	ix, inOrder := e.ordered(q)
	order, err := sqlstate.OrderBy(q.Sort, "e.key", func(path []string) []expr {
		if inOrder && slices.Equal(path, ix.Path) {
			return []expr{kindAt(document(), ix), valueAt(document(), ix)}
		}
		return sqlstate.OrderAt(dialect{}, document(), path)
	})
	if err != nil {
		return expr{}, err
	}
	var from expr
	if inOrder {
		from, err = e.fromRows(sqlstate.SQL(e.table.name+" e INDEXED BY "+e.indexName(ix)+" WHERE e.store = "+sqlstate.Literal(e.store)), q.Filter)
	} else {
		from, err = e.from(q.Filter)
	}
	if err != nil {
		return expr{}, err
	}
	if q.After != nil {
		after, err := sqlstate.After(dialect{}, document(), q.Sort, "e.key", q.After)
		if err != nil {
			return expr{}, err
		}
		if inOrder {
			after = sqlstate.SQL("@ AND @", within(ix, q), after)
		}
		from = sqlstate.SQL("@ AND @", from, after)
	}
	limit := int64(-1) // all
	if q.Limit > 0 {
		limit = int64(q.Limit)
	}
	return bounded(sqlstate.SQL("SELECT "+columns+" FROM @ ORDER BY @ LIMIT @ OFFSET @",
		from, order, sqlstate.Bind(limit), sqlstate.Bind(q.Offset)))
}

// maxBinds keeps a statement within the 32 766 values that SQLite binds.
const maxBinds = 32_000

func bounded(query expr) (expr, error) {
	if len(query.Args) > maxBinds {
		return expr{}, &state.FilterError{Reason: "it is more than SQLite takes in one statement; use fewer comparisons or shorter paths"}
	}
	return query, nil
}

// from is the table and the condition on its rows. Those that an index leads to are looked up by their number: SQLite would
// at times rather go through the store in the order of its keys, and ask of each row whether it is among them.
func (e *engine) from(f state.Filter) (expr, error) {
	p, ok := sqlstate.Choose(dialect{}, e.indexed(), f)
	if !ok {
		return e.fromRows(sqlstate.SQL(e.table.name+" e WHERE e.store = @", sqlstate.Bind(e.store)), f)
	}
	source, err := e.found(p)
	if err != nil {
		return expr{}, err
	}
	if p.Exact {
		f = p.Rest
	}
	return e.fromRows(sqlstate.SQL(e.table.name+" e NOT INDEXED WHERE @", source), f)
}

// fromRows is the rows of a source that live and match.
func (e *engine) fromRows(source expr, f state.Filter) (expr, error) {
	matches, err := sqlstate.Where(dialect{}, document(), f)
	return sqlstate.SQL("@ AND (e.expires_at IS NULL OR e.expires_at > @) AND (@)", source, sqlstate.Bind(time.Now().UnixMicro()), matches), err
}

// found is the condition that a row is among those that an index leads to. Each part of the index is asked for by itself,
// so that SQLite, which knows nothing of how values are spread, cannot choose another way.
func (e *engine) found(p *sqlstate.Plan) (expr, error) {
	served, err := sqlstate.Where(dialect{}, document(), p.Served)
	if err != nil {
		return expr{}, err
	}
	kind := kindAt(document(), p.Index)
	part := func(k int, when expr) expr {
		return sqlstate.SQL("SELECT e.rowid FROM "+e.table.name+" e INDEXED BY "+e.indexName(p.Index)+" WHERE e.store = "+sqlstate.Literal(e.store)+
			" AND @ = "+strconv.Itoa(k)+" AND @", kind, when)
	}
	var parts []expr
	for _, r := range p.Ranges {
		if r.When.Text == "" {
			r.When = sqlstate.SQL("1=1")
		}
		parts = append(parts, part(r.Kind, r.When))
	}
	for _, k := range sqlstate.Composites(p.Index) {
		parts = append(parts, part(k, sqlstate.SQL("(@)", served)))
	}
	return sqlstate.SQL("e.rowid IN (@)", sqlstate.Join(parts, " UNION ALL ")), nil
}
