package state_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A wrong filter is refused with a sentence that names what is wrong.
func TestParseFilterRefuses(t *testing.T) {
	for _, c := range []struct{ filter, path, operator, says string }{
		{`{"a":{"$regex":"x"}}`, "a", "$regex", "unknown"},
		{`{"$where":"1"}`, "", "$where", "unknown"},
		{`{"$nor":[{"a":1}]}`, "", "$nor", "unknown"},
		{`{"$gt":1}`, "", "$gt", "within a member's condition"},
		{`{"a":{"b":1}}`, "a", "", `"a.b"`},
		{`{"a":{"$gt":1,"b":2}}`, "a", "", `"a.b"`},
		{`{"a":{}}`, "a", "", "needs a value"},
		{`{"a":[1]}`, "a", "$eq", "needs a string, a number"},
		{`{"a":{"$eq":{"x":1}}}`, "a", "$eq", "needs a string, a number"},
		{`{"a":{"$in":3}}`, "a", "$in", "array"},
		{`{"a":{"$in":[[1]]}}`, "a", "$in", "needs a string, a number"},
		{`{"a":{"$gt":null}}`, "a", "$gt", "null has no order"},
		{`{"a":{"$exists":1}}`, "a", "$exists", "true or false"},
		{`{"a":{"$startsWith":1}}`, "a", "$startsWith", "string"},
		{`{"a":{"$not":1}}`, "a", "$not", "object of operators"},
		{`{"$and":{}}`, "", "$and", "array"},
		{`{"$or":[]}`, "", "$or", "at least one"},
		{`{"$or":[1]}`, "", "", "object"},
		{`{"$not":{}}`, "", "$not", "needs a condition"},
		{`{"a..b":1}`, "a..b", "", "empty segment"},
		{`{"":1}`, "", "", "empty segment"},
		{`{"a.-1":1}`, "a.-1", "", "dash"},
		{`{"a\nb":1}`, "a\nb", "", "control character"},
		{`{"a":1e999}`, "a", "$eq", "beyond the range"},
		{`{"a":1,"a":2}`, "", "", "not valid JSON"},
		{`{"a":NaN}`, "", "", "not valid JSON"},
		{`{"a":1}x`, "", "", "text after"},
		{`{"a":`, "", "", "not valid JSON"},
		{`[]`, "", "", "object"},
		{`{"a":"` + "\xff" + `"}`, "", "", "not valid JSON"},
		{strings.Repeat("x", state.MaxFilterBytes+1), "", "", "more than"},
		{`{"a":{"$in":[` + strings.Repeat("1,", state.MaxFilterOperands) + `1]}}`, "a", "$in", "more than 1000 values"},
		{`{"$and":[` + strings.Repeat(`{"a":1},`, state.MaxFilterClauses) + `{"b":1}]}`, "b", "$eq", "more than 200 comparisons"},
		{strings.Repeat(`{"$not":`, 10000), "", "", "nested"},
		{`{"a":` + strings.Repeat(`{"$not":`, 1000), "a", "", "nested"},
		{`{"` + strings.Repeat("a.", state.MaxPathSegments) + `a":1}`, strings.Repeat("a.", state.MaxPathSegments) + "a", "", "more than 32 segments"},
	} {
		_, err := state.ParseFilter([]byte(c.filter))
		var wrong *state.FilterError
		name := c.filter[:min(len(c.filter), 60)]
		require.ErrorAs(t, err, &wrong, name)
		require.ErrorIs(t, err, state.ErrInvalid, name)
		require.Equal(t, c.path, wrong.Path, name)
		require.Equal(t, c.operator, wrong.Operator, name)
		require.Contains(t, wrong.Error(), c.says, name)
		require.Contains(t, wrong.Error(), c.operator, name)
	}
}

// Filters that say nothing match everything.
func TestParseFilterEverything(t *testing.T) {
	for _, filter := range []string{``, ` `, `{}`, `{"$and":[{}]}`, `{"$or":[{},{"a":1}]}`} {
		f, err := state.ParseFilter([]byte(filter))
		require.NoError(t, err, filter)
		require.Nil(t, f.Root(), filter)
	}
}

// Complements are kept as a $not of their opposite, so that an engine has fewer operators to get right.
func TestParseFilterComplements(t *testing.T) {
	for filter, op := range map[string]state.Operator{
		`{"a":{"$ne":1}}`: state.OpEq, `{"a":{"$nin":[1]}}`: state.OpIn, `{"a":{"$exists":false}}`: state.OpExists, `{"a":{"$not":{"$gt":1}}}`: state.OpGt,
	} {
		f, err := state.ParseFilter([]byte(filter))
		require.NoError(t, err)
		require.Equal(t, state.OpNot, f.Root().Op, filter)
		require.Equal(t, op, f.Root().Clauses[0].Op, filter)
	}
}

func TestQueryValidate(t *testing.T) {
	require.NoError(t, state.Query{Sort: []state.Sort{{Field: "a.b"}}, Limit: 1}.Validate())
	for _, q := range []state.Query{
		{Limit: -1}, {Offset: -1}, {Sort: []state.Sort{{}}}, {Sort: []state.Sort{{Field: "a..b"}}}, {Sort: make([]state.Sort, state.MaxSorts+1)},
	} {
		require.ErrorIs(t, q.Validate(), state.ErrInvalid)
	}
}

// FuzzParseFilter looks for input that makes the parser panic, or fail with something else than a FilterError.
func FuzzParseFilter(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, `{"$or":[{"a.b":{"$in":[1,"x",null,true]}},{"$not":{"c":{"$not":{"$gte":"é"}}}}]}`, `{"a":{"$exists":false}}`, `{"a":1e400}`, `[[`, "\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := state.ParseFilter(data)
		var wrong *state.FilterError
		if err != nil && !errors.As(err, &wrong) {
			t.Fatalf("%T: %v", err, err)
		}
	})
}
