package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
	"github.com/bannou-mesh/bannou/services/state/stateapi"
)

type sortField = stateapi.SortField

const descending = stateapi.Desc

// known reports whether an operator of a filter exists.
func known(op state.Operator) bool {
	switch op {
	case state.OpEq, "$ne", state.OpGt, state.OpGte, state.OpLt, state.OpLte, state.OpIn, "$nin", state.OpExists,
		state.OpContains, state.OpStartsWith, state.OpEndsWith, state.OpAnd, state.OpOr, state.OpNot:
		return true
	default:
		return false
	}
}

// queryState is POST /state/query.
func (s *Service) queryState(ctx context.Context, r *stateapi.QueryStateRequest) (*stateapi.QueryStateResponse, error) {
	if err := s.checkStore(ctx, r.StoreName, guard.Read); err != nil {
		return nil, err
	}
	filter, err := parseFilter(r.Filter)
	if err != nil {
		return nil, err
	}
	order, err := sorts(r.Sort)
	if err != nil {
		return nil, err
	}
	if err := checkFields(r.Fields); err != nil {
		return nil, err
	}
	pageSize, err := checkPage(r.Page, r.PageSize)
	if err != nil {
		return nil, err
	}
	if r.Cursor != nil && r.Page != 0 {
		return nil, problem.Invalid("page", "is %d beside a cursor, which says itself where to go on; leave it out", r.Page)
	}
	if err := checkConsistency(r.Options.Consistency); err != nil {
		return nil, err
	}
	store, err := s.queryable(ctx, r.StoreName)
	if err != nil {
		return nil, err
	}
	if r.Options.Consistency == stateapi.Eventual {
		store = store.Eventual()
	}
	query := state.Query{Filter: filter, Sort: order, Fields: r.Fields}
	if r.Cursor != nil {
		return queryAfter(ctx, store, query, *r.Cursor, pageSize)
	}
	page, err := store.QueryPaged(ctx, query, r.Page, pageSize)
	if err != nil {
		return nil, filterProblem(err)
	}
	answer := &stateapi.QueryStateResponse{TotalCount: &page.TotalCount, Page: page.Page, PageSize: page.PageSize}
	answer.Keys, answer.Results, err = found(page.Items)
	return answer, err
}

// queryAfter is the page that a cursor leads to.
func queryAfter(ctx context.Context, store *state.QueryableStore[json.RawMessage], q state.Query, cursor string, pageSize int) (*stateapi.QueryStateResponse, error) {
	page, err := store.QueryAfter(ctx, q, cursor, pageSize)
	switch {
	case errors.Is(err, state.ErrCursor):
		return nil, problem.Invalid("cursor", "cannot be used: %s", reason(err, state.ErrCursor)).Because(err)
	case err != nil:
		return nil, filterProblem(err)
	}
	answer := &stateapi.QueryStateResponse{PageSize: pageSize, NextCursor: page.Next}
	answer.Keys, answer.Results, err = found(page.Items)
	return answer, err
}

func found(items []state.Entry[json.RawMessage]) (keys []string, values []json.RawMessage, err error) {
	keys, values = make([]string, len(items)), make([]json.RawMessage, len(items))
	size := 0
	for i, item := range items {
		keys[i], values[i] = item.Key, item.Value
		size += len(item.Value)
	}
	return keys, values, checkAnswer("pageSize", size)
}

func parseFilter(raw json.RawMessage) (state.Filter, error) {
	switch trimmed := bytes.TrimLeft(raw, " \t\r\n"); {
	case len(trimmed) == 0 || bytes.Equal(trimmed, []byte("null")):
		return state.Filter{}, problem.Missing("filter")
	case trimmed[0] != '{':
		return state.Filter{}, problem.Invalid("filter", "has to be an object; {} matches everything")
	}
	filter, err := state.ParseFilter(raw)
	return filter, filterProblem(err)
}

func (s *Service) queryable(ctx context.Context, name string) (*state.QueryableStore[json.RawMessage], error) {
	store, err := state.OpenQueryable[json.RawMessage](ctx, s.cfg.Factory, name)
	if errors.Is(err, state.ErrUnsupported) {
		backend, _ := s.cfg.Factory.Backend(name) // it is known, or it would not be unsupported
		return nil, problem.New(problem.Unsupported, "member storeName: store %q is on %s, which cannot query; keep it on "+
			"mysql or sqlite to query it", name, backend).At("storeName").Because(err)
	}
	return store, err
}
