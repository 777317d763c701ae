package facade

import (
	"context"
	"errors"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

type bulkItem struct {
	Key  string         `json:"key"`
	Data jsontext.Value `json:"data,omitzero"`
	ETag string         `json:"etag,omitzero"`
}

// readStates are the values of keys. A key that is absent is there without data.
func (s *Service) readStates(ctx context.Context, name string, asked []string) ([]bulkItem, error) {
	st, store, err := s.store(ctx, name)
	if err != nil {
		return nil, err
	}
	keys := make([]string, len(asked))
	for i, key := range asked {
		if keys[i], err = st.key(key); err != nil {
			return nil, err
		}
	}
	answer := make([]bulkItem, 0, len(keys))
	for _, part := range distinct(keys, func(key string) string { return key }) {
		found, err := store.GetBulk(ctx, part)
		if err != nil {
			return nil, stateRefusal(err, "ERR_STATE_BULK_GET", "failed to get from state store "+name)
		}
		for _, e := range found {
			answer = append(answer, bulkItem{Key: st.original(e.Key), Data: st.loaded(e.Value), ETag: e.ETag})
		}
	}
	return answer, nil
}

// An operation is one of a transaction: upsert or delete.
type operation struct {
	Operation string `json:"operation"`
	Request   entry  `json:"request"`
}

// changeStates is a transaction: all or nothing.
func (s *Service) changeStates(ctx context.Context, name string, asked []operation, request map[string]string) error {
	st, store, err := s.store(ctx, name)
	if err != nil {
		return err
	}
	var ops []state.Op[state.Opaque]
	place := map[string]int{}
	for _, o := range asked {
		item, err := o.Request.item(st, request)
		if err != nil {
			return err
		}
		op := state.Op[state.Opaque]{Key: item.Key, Value: item.Value, ETag: item.ETag, Expiry: item.Expiry}
		switch o.Operation {
		case "upsert":
		case "delete":
			op.Delete, op.Value, op.Expiry = true, nil, 0
			if op.ETag != nil && *op.ETag == "" {
				op.ETag = nil
			}
		default:
			return refuse(http.StatusBadRequest, "ERR_NOT_SUPPORTED_STATE_OPERATION", "operation type %s not supported", o.Operation)
		}
		// Of several operations on a key the last one counts, as if they were made one after another.
		at, again := place[op.Key]
		switch {
		case !again:
			place[op.Key] = len(ops)
			ops = append(ops, op)
		case op.ETag != nil:
			return malformed("the key %s is changed twice in one transaction, the second time with a condition", o.Request.Key)
		default:
			op.ETag = ops[at].ETag
			ops[at] = op
		}
	}
	if len(ops) == 0 {
		return nil
	}
	_, err = store.Transact(ctx, ops)
	return stateRefusal(err, "ERR_STATE_TRANSACTION", "error while executing state transaction")
}

// findStates are the values that a query asks for, and the token that leads on.
func (s *Service) findStates(ctx context.Context, name string, content []byte) ([]bulkItem, string, error) {
	st, _, err := s.store(ctx, name)
	if err != nil {
		return nil, "", err
	}
	store, err := state.OpenQueryable[jsontext.Value](ctx, st.Factory, st.Name)
	if errors.Is(err, state.ErrUnsupported) || st.Prefix != "" {
		return nil, "", refuse(http.StatusInternalServerError, "ERR_STATE_STORE_NOT_SUPPORTED", "state store %s does not support querying", name)
	}
	if err != nil {
		return nil, "", stateRefusal(err, "ERR_STATE_QUERY", "failed to query state store "+name)
	}
	query, size, token, err := parseQuery(content)
	if err != nil {
		return nil, "", err
	}
	page, err := store.QueryAfter(ctx, query, token, size)
	if err != nil {
		return nil, "", stateRefusal(err, "ERR_STATE_QUERY", "failed query in state store "+name)
	}
	found := make([]bulkItem, len(page.Items))
	for i, e := range page.Items {
		found[i] = bulkItem{Key: e.Key, Data: st.loaded(state.Opaque(e.Value)), ETag: e.ETag}
	}
	return found, page.Next, nil
}

// parseQuery reads {filter, sort, page}.
func parseQuery(content []byte) (query state.Query, size int, token string, err error) {
	var asked struct {
		Filter jsontext.Value `json:"filter"`
		Sort   []struct {
			Key   string `json:"key"`
			Order string `json:"order"`
		} `json:"sort"`
		Page struct {
			Limit int    `json:"limit"`
			Token string `json:"token"`
		} `json:"page"`
	}
	if err := json.Unmarshal(content, &asked); err != nil {
		return query, 0, "", malformed("%s", err)
	}
	if query.Filter, err = parseFilter(asked.Filter, 0); err != nil {
		return query, 0, "", err
	}
	for _, sort := range asked.Sort {
		query.Sort = append(query.Sort, state.Sort{Field: sort.Key, Descending: sort.Order == "DESC" || sort.Order == "desc"})
	}
	size = asked.Page.Limit
	if size == 0 {
		size = state.MaxPageSize
	}
	return query, size, asked.Page.Token, nil
}

// parseFilter reads {"EQ": {"path": value}}, {"AND": [filter, …]} and their like.
func parseFilter(content jsontext.Value, depth int) (state.Filter, error) {
	if len(content) == 0 {
		return state.Filter{}, nil
	}
	if depth > maxDepth { // each level reads all that is below it again
		return state.Filter{}, malformed("the filter is nested too deep: %d levels are allowed", maxDepth)
	}
	var one map[string]jsontext.Value
	if err := json.Unmarshal(content, &one); err != nil {
		return state.Filter{}, malformed("the filter: %s", err)
	}
	if len(one) == 0 {
		return state.Filter{}, nil
	}
	if len(one) > 1 {
		return state.Filter{}, malformed("a filter has one operator; join several with AND or OR")
	}
	for operator, operand := range one {
		if operator == "AND" || operator == "OR" {
			return parseJoined(operator, operand, depth+1)
		}
		var compared map[string]jsontext.Value
		if err := json.Unmarshal(operand, &compared); err != nil || len(compared) != 1 {
			return state.Filter{}, malformed("the operator %s needs an object of one member", operator)
		}
		for path, value := range compared {
			return compare(operator, path, value)
		}
	}
	return state.Filter{}, nil
}

func parseJoined(operator string, operand jsontext.Value, depth int) (state.Filter, error) {
	var list []jsontext.Value
	if err := json.Unmarshal(operand, &list); err != nil || len(list) == 0 {
		return state.Filter{}, malformed("the operator %s needs a list of filters", operator)
	}
	joined, err := parseFilter(list[0], depth)
	for _, next := range list[1:] {
		if err != nil {
			break
		}
		var other state.Filter
		if other, err = parseFilter(next, depth); err == nil && operator == "AND" {
			joined = joined.And(other)
		} else if err == nil {
			joined = joined.Or(other)
		}
	}
	return joined, err
}

func compare(operator, path string, value jsontext.Value) (state.Filter, error) {
	member := state.Where(path)
	switch operator {
	case "EQ":
		return member.Eq(value), nil
	case "NEQ":
		return member.Ne(value), nil
	case "GT":
		return member.Gt(value), nil
	case "GTE":
		return member.Gte(value), nil
	case "LT":
		return member.Lt(value), nil
	case "LTE":
		return member.Lte(value), nil
	case "IN":
		var list []jsontext.Value
		if json.Unmarshal(value, &list) != nil {
			return state.Filter{}, malformed("the operator IN needs a list of values")
		}
		operands := make([]any, len(list)) // as they are written: a number keeps its digits
		for i, v := range list {
			operands[i] = v
		}
		return member.In(operands...), nil
	}
	return state.Filter{}, malformed("there is no operator %s; there are EQ, NEQ, GT, GTE, LT, LTE, IN, AND, OR", operator)
}
