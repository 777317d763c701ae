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
