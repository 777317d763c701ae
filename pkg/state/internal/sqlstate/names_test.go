package sqlstate_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Names lose escapes they do not need; values keep every byte.
func TestPlainNames(t *testing.T) {
	for value, want := range map[string]string{
		`{"a":1}`:  `{"a":1}`,
		`"\u0041"`: `"\u0041"`,
		` { "\u0041" : "\u0041" , "b\"\/": [ {"\ud83d\ude00":1.10} ] } `: ` { "A" : "\u0041" , "b\"/": [ {"😀":1.10} ] } `,
		`{"\n\\":"\/"}`:                  `{"\n\\":"\/"}`,
		`[{"x":{"\u00e9":{}}},"\u00e9"]`: `[{"x":{"é":{}}},"\u00e9"]`,
		`{"\u0041":`:                     `{"\u0041":`,
	} {
		require.Equal(t, want, string(sqlstate.PlainNames([]byte(value))))
	}
}
