package state_test

import (
	"errors"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A filter comes from outside as JSON. What is wrong with it is said by name.
func ExampleParseFilter() {
	filter, err := state.ParseFilter([]byte(`{"owner": "alice", "level": {"$gte": 10}, "tags": {"$in": ["pvp", "eu"]}}`))
	fmt.Println(filter.Root().Op, err)

	_, err = state.ParseFilter([]byte(`{"name": {"$regex": "^A"}}`))
	fmt.Println(errors.Is(err, state.ErrInvalid))
	var wrong *state.FilterError
	if errors.As(err, &wrong) {
		fmt.Println(wrong.Path, wrong.Operator)
	}
	// Output:
	// $and <nil>
	// true
	// name $regex
}

// Filters of the program's own are put together in Go.
func ExampleWhere() {
	filter := state.Where("status").Eq("active").And(state.Where("level").Gte(10), state.Not(state.Where("tags").In("bot", "test")))
	fmt.Println(filter.Root().Op, len(filter.Root().Clauses), filter.Err())

	fmt.Println(state.Where("name").Gt(nil).Err())
	// Output:
	// $and 3 <nil>
	// filter: member "name": operator "$gt": needs a number, a string or a boolean; null has no order
}
