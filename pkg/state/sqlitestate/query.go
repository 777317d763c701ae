package sqlitestate

import (
	"context"
	"database/sql/driver"
	"slices"
	"strconv"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Query evaluates the query in SQLite, by what an index keeps of scalars alone when that is enough.
func (e *engine) Query(ctx context.Context, q state.Query) ([]state.Record, error) {
	p, planned := sqlstate.Choose(dialect{}, e.indexed(), q.Filter)
	if planned && p.Exact && len(p.Ranges) == 1 && !p.Index.Doubtful() {
		query, err := e.quickly(p, q)
		if err != nil {
			return nil, err
		}
		records, err := e.read(ctx, query)
		if last := len(records) - 1; err != nil || last < 0 || records[last].Key != doubt {
			return records, err
		}
		p.Index.Doubted()
	}
	query, err := e.selection(p, q)
	if err != nil {
		return nil, err
	}
	return e.read(ctx, query)
}

// read runs a selection.
func (e *engine) read(ctx context.Context, query expr) ([]state.Record, error) {
	var records []state.Record
	err := sqlstate.Read(ctx, e.table.reader, query.Text, query.Args, func(row []driver.Value) error {
		record, err := recordOf(row)
		records = append(records, record)
		return err
	})
	if err != nil {
		return nil, e.failure(ctx, e.corrupt(ctx, err))
	}
	return records, nil
}

// corrupt is the error of a query that met a value which is no JSON, with its key.
func (e *engine) corrupt(ctx context.Context, err error) error {
	if resultCode(err) != sqlite3.SQLITE_ERROR || !strings.Contains(err.Error(), "malformed JSON") {
		return err
	}
	return sqlstate.Damaged(ctx, e.table.reader, e.table.sql("SELECT key FROM {table} WHERE store = ? AND NOT json_valid(value) LIMIT 1"), e.store, err)
}

// Count evaluates the filter in SQLite.
func (e *engine) Count(ctx context.Context, f state.Filter) (int64, error) {
	p, _ := sqlstate.Choose(dialect{}, e.indexed(), f)
	from, err := e.from(p, f)
	if err != nil {
		return 0, err
	}
	query, err := bounded(sqlstate.SQL("SELECT count(*) FROM @", from))
	if err != nil {
		return 0, err
	}
	n, err := sqlstate.CountOf(func(row func([]driver.Value) error) error {
		return sqlstate.Read(ctx, e.table.reader, query.Text, query.Args, row)
	})
	if err != nil {
		return 0, e.failure(ctx, e.corrupt(ctx, err))
	}
	return n, nil
}

// doubt is the key of a record that says that others may be missing. No key is empty.
const doubt = ""

// quickly is a statement that asks less than selection does: it looks for scalars alone, in one range of an index that has no
// others. Its answer is right unless the index has values of composite kinds, which it says by a last record: doubt. SQLite
// makes the second part of a UNION ALL when the first is at its end.
func (e *engine) quickly(p *sqlstate.Plan, q state.Query) (expr, error) {
	in, terms := p.Ranges[0], p.Index.Terms
	when := in.When.Text
	if when == "" {
		when = "1=1"
	}
	if p.Rest.Root() == nil && len(q.Sort) == 0 && q.After == nil { // the rule, in fewer steps
		var query expr
		if ordinary := in.Kind == int(state.RankNumber) || in.Kind == int(state.RankString); ordinary && when == terms[termEqual].Text {
			query = terms[termOne+in.Kind-int(state.RankNumber)]
		} else {
			query = quick(terms[termBegin], in.Kind, expr{Text: when}, terms[termEnd])
		}
		query.Args = append(slices.Clip(in.When.Args), time.Now().UnixMicro(), limit(q), q.Offset)
		return bounded(query)
	}
	from, err := e.fromRows(expr{Text: terms[termBegin].Text + strconv.Itoa(in.Kind) + " AND " + when, Args: in.When.Args}, p.Rest)
	if err != nil {
		return expr{}, err
	}
	if q.After != nil {
		after, err := sqlstate.After(dialect{}, document(), q.Sort, "e.key", q.After)
		if err != nil {
			return expr{}, err
		}
		from = sqlstate.SQL("@ AND @", from, after)
	}
	order, err := sqlstate.OrderBy(q.Sort, "e.key", func(path []string) []expr { return sqlstate.OrderAt(dialect{}, document(), path) })
	if err != nil {
		return expr{}, err
	}
	query := sqlstate.SQL("@ ORDER BY @@", from, order, terms[termEnd])
	query.Args = append(query.Args, limit(q), q.Offset)
	return bounded(query)
}

// limit is how many rows a statement is to return; -1: all.
func limit(q state.Query) int64 {
	if q.Limit > 0 {
		return int64(q.Limit)
	}
	return -1
}

// selection is the statement of a query. An index that the filter can begin with comes first, where there is a plan; else, when
// not all rows are asked for, one that has them in order.
func (e *engine) selection(p *sqlstate.Plan, q state.Query) (expr, error) {
	var ix sqlstate.Index
	var inOrder bool
	if p == nil {
		ix, inOrder = e.ordered(q)
	}
	order, err := sqlstate.OrderBy(q.Sort, "e.key", func(path []string) []expr {
		if inOrder && slices.Equal(path, ix.Path) {
			return ix.Terms[termKind : termValue+1]
		}
		return sqlstate.OrderAt(dialect{}, document(), path)
	})
	if err != nil {
		return expr{}, err
	}
	var from expr
	if inOrder {
		from, err = e.fromRows(ix.Terms[termRows], q.Filter)
	} else {
		from, err = e.from(p, q.Filter)
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
	return bounded(sqlstate.SQL("SELECT "+columns+" FROM @ ORDER BY @ LIMIT @ OFFSET @",
		from, order, sqlstate.Bind(limit(q)), sqlstate.Bind(q.Offset)))
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
func (e *engine) from(p *sqlstate.Plan, f state.Filter) (expr, error) {
	if p == nil {
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
	part := func(k int, when expr) expr {
		return sqlstate.SQL("SELECT e.rowid FROM @ AND @ = "+strconv.Itoa(k)+" AND @", p.Index.Terms[termRows], p.Index.Terms[termKind], when)
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
