package facade

import (
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

// bulkGetState is POST /v1.0/state/{store}/bulk. A key that is absent is there without data.
func (s *Service) bulkGetState(w http.ResponseWriter, r *http.Request) error {
	st, store, err := s.store(r)
	if err != nil {
		return err
	}
	var asked struct {
		Keys []string `json:"keys"`
	}
	if err := s.decode(w, r, &asked); err != nil {
		return err
	}
	keys := make([]string, len(asked.Keys))
	for i, key := range asked.Keys {
		if keys[i], err = st.key(key); err != nil {
			return err
		}
	}
	answer := make([]bulkItem, 0, len(keys))
	for _, part := range distinct(keys, func(key string) string { return key }) {
		found, err := store.GetBulk(r.Context(), part)
		if err != nil {
			return stateRefusal(err, "ERR_STATE_BULK_GET", "failed to get from state store "+r.PathValue("store"))
		}
		for _, e := range found {
			answer = append(answer, bulkItem{Key: st.original(e.Key), Data: e.Value, ETag: e.ETag})
		}
	}
	answerJSON(w, http.StatusOK, answer)
	return nil
}

// transactState is POST and PUT /v1.0/state/{store}/transaction: all or nothing.
func (s *Service) transactState(w http.ResponseWriter, r *http.Request) error {
	st, store, err := s.store(r)
	if err != nil {
		return err
	}
	var asked struct {
		Operations []struct {
			Operation string `json:"operation"`
			Request   entry  `json:"request"`
		} `json:"operations"`
		Metadata map[string]string `json:"metadata"`
	}
	if err := s.decode(w, r, &asked); err != nil {
		return err
	}
	request := over(metadata(r), asked.Metadata)
	var ops []state.Op[jsontext.Value]
	place := map[string]int{}
	for _, o := range asked.Operations {
		item, err := o.Request.item(st, request)
		if err != nil {
			return err
		}
		op := state.Op[jsontext.Value]{Key: item.Key, Value: item.Value, ETag: item.ETag, Expiry: item.Expiry}
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
	if len(ops) > 0 {
		if _, err := store.Transact(r.Context(), ops); err != nil {
			return stateRefusal(err, "ERR_STATE_TRANSACTION", "error while executing state transaction")
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// queryState is POST and PUT /v1.0-alpha1/state/{store}/query.
func (s *Service) queryState(w http.ResponseWriter, r *http.Request) error {
	st, _, err := s.store(r)
	if err != nil {
		return err
	}
	store, err := state.OpenQueryable[jsontext.Value](r.Context(), st.Factory, st.Name)
	if errors.Is(err, state.ErrUnsupported) || st.Prefix != "" {
		return refuse(http.StatusInternalServerError, "ERR_STATE_STORE_NOT_SUPPORTED", "state store %s does not support querying", r.PathValue("store"))
	}
	if err != nil {
		return stateRefusal(err, "ERR_STATE_QUERY", "failed to query state store "+r.PathValue("store"))
	}
	content, err := s.body(w, r)
	if err != nil {
		return err
	}
	query, size, token, err := parseQuery(content)
	if err != nil {
		return err
	}
	page, err := store.QueryAfter(r.Context(), query, token, size)
	if err != nil {
		return stateRefusal(err, "ERR_STATE_QUERY", "failed query in state store "+r.PathValue("store"))
	}
	if len(page.Items) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	answer := struct {
		Results []bulkItem `json:"results"`
		Token   string     `json:"token,omitzero"`
	}{Token: page.Next}
	for _, e := range page.Items {
		answer.Results = append(answer.Results, bulkItem{Key: e.Key, Data: e.Value, ETag: e.ETag})
	}
	answerJSON(w, http.StatusOK, answer)
	return nil
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
