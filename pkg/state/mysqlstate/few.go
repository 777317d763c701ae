package mysqlstate

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// To ask for an order costs the server time also where an index has it, and most queries for what is equal find few values. So
// they are asked without, for one more than the limit: if there are no more, they are all there is, and are put into order here.

// ofFew reports whether a query is such a one.
func ofFew(p *sqlstate.Plan, q state.Query) bool { return p.Equal && len(q.Sort) == 0 && q.Offset == 0 }

// readFew runs the query so. all is false when there are more values than the limit, or some with an array at the index.
func (e *engine) readFew(ctx context.Context, p *sqlstate.Plan, q state.Query) (records []state.Record, all bool, err error) {
	query, err := e.few(p, q)
	if err != nil {
		return nil, false, err
	}
	records, arrays, err := e.read(ctx, query)
	switch {
	case err != nil:
		return nil, false, err
	case q.Limit > 0 && len(records) > q.Limit: // those that were left out may be any
		p.Index.Overran()
		return nil, false, nil
	case arrays:
		p.Index.Doubted()
		return nil, false, nil
	}
	slices.SortFunc(records, func(a, b state.Record) int { return strings.Compare(a.Key, b.Key) })
	return records, true, nil
}

// few is the statement, after its SELECT. The rows with an array at the index are taken for a match, and are doubtful.
func (e *engine) few(p *sqlstate.Plan, q state.Query) (expr, error) {
	in, terms := p.Ranges[0], p.Index.Terms
	equal := strconv.Itoa(in.Kind)
	if in.Kind == int(state.RankString) {
		equal += " AND " + terms[termNumber].Text + " IS NULL" // it stands before the text in the index
	}
	if in.When.Text != "" {
		equal += " AND " + in.When.Text
	}
	limit := int64(math.MaxInt64)
	if q.Limit > 0 {
		limit = int64(q.Limit) + 1
	}
	args := make([]any, 0, len(in.When.Args)+2)
	args = append(append(args, e.store), in.When.Args...)
	if p.Rest.Root() == nil && q.After == nil {
		return expr{Text: terms[termBegin].Text + equal + terms[termEnd].Text + " LIMIT ?", Args: append(args, limit)}, nil
	}
	from := expr{Text: terms[termBegin].Text + equal + terms[termEnd].Text, Args: args}
	matches, err := sqlstate.Where(dialect{}, document(), p.Rest)
	if err != nil {
		return expr{}, err
	}
	if q.After != nil {
		after, err := sqlstate.After(dialect{}, document(), nil, "e.`key`", q.After)
		if err != nil {
			return expr{}, err
		}
		matches = sqlstate.SQL("@ AND (@)", after, matches)
	}
	return sqlstate.SQL("@ AND (@) LIMIT @", from, matches, sqlstate.Bind(limit)), nil
}
