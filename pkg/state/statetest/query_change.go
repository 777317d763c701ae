package statetest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// An engine may ask otherwise for what is equal where it knows of no array, and where it expects few values. Whatever it learnt,
// it finds each value, in order, also at once after arrays or more values came or went.
func queryArraysChange(t *testing.T, d state.Driver, indexes ...string) {
	s := openQueries(t, d, named("q-come-and-go", indexes), nil, indexes...)
	change := func(c state.Change) {
		outcomes, err := s.engine.Apply(t.Context(), []state.Change{c})
		require.NoError(t, err)
		require.NoError(t, outcomes[0].Err)
	}
	save := func(key, value string) { change(state.Change{Key: key, Value: []byte(value), Expiry: state.Never}) }
	found := func(q state.Query, want ...string) {
		t.Helper()
		for _, filter := range []string{`{"level":7}`, `{"a.b":"x"}`, `{"level":7,"c":null}`} {
			require.Equal(t, want, s.keys(t, filter, q), filter)
		}
	}
	all, first := state.Query{}, state.Query{Limit: 1}
	save("m", `{"level":7,"a":{"b":"x"}}`)
	found(all, "m")
	save("c", `{"level":[1,7],"a":[{"b":"x"}]}`)
	for range 3 {
		found(all, "c", "m")
		found(first, "c")
	}
	change(state.Change{Key: "m", Delete: true})
	found(all, "c")
	change(state.Change{Key: "c", Delete: true})
	for i := range 30 { // until what was learnt of arrays is forgotten
		save(fmt.Sprintf("%02d", 50-i), `{"level":7,"a":{"b":"x"}}`)
		found(first, fmt.Sprintf("%02d", 50-i))
		found(state.Query{Limit: 2, After: &state.Position{Key: "50"}}, []string{}...)
	}
	found(state.Query{Limit: 3}, "21", "22", "23")
	found(state.Query{Limit: 3, Offset: 2}, "23", "24", "25")
	found(state.Query{Limit: 2, After: &state.Position{Key: "30"}}, "31", "32")
	save("0", `{"level":[7],"a":{"b":["x"]}}`)
	found(first, "0")
	found(state.Query{Limit: 2}, "0", "21")
}
