package facade

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A filter that is nested without end is refused, not read level after level: the time for that grows with the square of its length.
func TestNestedFilter(t *testing.T) {
	nested := func(levels int) error {
		_, _, _, err := parseQuery([]byte(`{"filter":` + strings.Repeat(`{"AND":[`, levels) + `{"EQ":{"a":1}}` + strings.Repeat("]}", levels) + "}"))
		return err
	}
	require.NoError(t, nested(maxDepth))
	require.ErrorContains(t, nested(maxDepth+1), "nested too deep")
}
