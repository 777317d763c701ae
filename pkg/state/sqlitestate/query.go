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
	rows, err := e.table.reader.QueryContext(ctx, query.Text, query.Args...)
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
	where, err := e.where(f)
	if err != nil {
		return 0, err
	}
	query, err := bounded(sqlstate.SQL("SELECT count(*) FROM "+e.table.name+" e WHERE @", where))
	if err != nil {
		return 0, err
	}
	var n int64
	if err := e.table.reader.QueryRowContext(ctx, query.Text, query.Args...).Scan(&n); err != nil {
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
	where, err := e.where(q.Filter)
	if err != nil {
		return expr{}, err
	}
	if q.After != nil {
		after, err := sqlstate.After(dialect{}, document(), q.Sort, "e.key", q.After)
		if err != nil {
			return expr{}, err
		}
		where = sqlstate.SQL("@ AND @", where, after)
	}
	from := e.table.name + " e"
	if inOrder {
		from += " INDEXED BY " + e.indexName(ix)
		where = sqlstate.SQL("e.store = "+sqlstate.Literal(e.store)+" AND @", where)
		if q.After != nil {
			where = sqlstate.SQL("@ AND @", within(ix, q), where)
		}
	}
	limit := int64(-1) // all
	if q.Limit > 0 {
		limit = int64(q.Limit)
	}
	return bounded(sqlstate.SQL("SELECT "+columns+" FROM "+from+" WHERE @ ORDER BY @ LIMIT @ OFFSET @",
		where, order, sqlstate.Bind(limit), sqlstate.Bind(q.Offset)))
}

// maxBinds keeps a statement within the 32 766 values that SQLite binds.
const maxBinds = 32_000

func bounded(query expr) (expr, error) {
	if len(query.Args) > maxBinds {
		return expr{}, &state.FilterError{Reason: "it is more than SQLite takes in one statement; use fewer comparisons or shorter paths"}
	}
	return query, nil
}

func (e *engine) where(f state.Filter) (expr, error) {
	source := sqlstate.SQL("e.store = @", sqlstate.Bind(e.store))
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
	return sqlstate.SQL("@ AND (e.expires_at IS NULL OR e.expires_at > @) AND (@)",
		source, sqlstate.Bind(time.Now().UnixMicro()), matches), nil
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
