package facade

import (
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
)

const sample = `{"type":"big","source":"shop","data":{"n":6,"big":1e300,"tags":["a","b"],"name":"O'Hara","deep":{"x-y":true}}}`

func TestRules(t *testing.T) {
	var event map[string]any
	require.NoError(t, json.Unmarshal([]byte(sample), &event))
	for match, want := range map[string]bool{
		`event.type == "big"`:                                true,
		`event.type == 'small'`:                              false,
		`event.type != "small" && event.data.n > 5`:          true,
		`event.data.n >= 6.0 && event.data.n <= 6`:           true,
		`event.data.n < 6 || event.data.n in [1, 6]`:         true,
		`!(event.type == "big")`:                             false,
		`event.data.missing == 1`:                            false,
		`event.data.missing == 1 || event.type == "big"`:     true,
		`event.type == "big" || event.data.missing == 1`:     true,
		`event.data.missing == 1 && true`:                    false,
		`has(event.data.missing)`:                            false,
		`has(event.data.n)`:                                  true,
		`"b" in event.data.tags && size(event.data.tags)==2`: true,
		`event.data.tags[1] == "b"`:                          true,
		`event.data["deep"]["x-y"]`:                          true,
		`event.source.startsWith("sh") && event.source.endsWith("op") && event.source.contains("ho")`: true,
		`event.data.name == 'O\'Hara'`:                 true,
		`event.data.name.matches("^O.H[a-z]+")`:        true,
		`event.type.size() == 3`:                       true,
		`event.data.n > -1`:                            true,
		`event.data.n > "5"`:                           false, // cannot be evaluated
		`event.type`:                                   false, // no condition
		`event.data.tags[2] == "c"`:                    false,
		`event.data.tags[-1] == "b"`:                   false,
		`event.data.tags[99999999999999999999] == "b"`: false, // more than an int has
		`event.data.tags[event.data.big] == "b"`:       false,
		``:                                             true,
	} {
		r, err := compileRule(Rule{Match: match, Path: "/x"})
		require.NoError(t, err, match)
		require.Equal(t, want, r.matches(event), match)
	}
	for _, bad := range []string{`event.`, `event.type = "x"`, `other.type == "x"`, `event.type == "x`, `(event.type`, `event.type.foo()`, `1 +`, `event.a.map(x, x)`, `[1 2]`} {
		_, err := compileRule(Rule{Match: bad})
		require.Error(t, err, bad)
	}
}

// Whatever stands in a rule, it is read or refused, and evaluated without a panic.
func FuzzRule(f *testing.F) {
	f.Add(`event.type == "big" && !(event.data.n in [1, 2.5, -3]) || has(event.data.x)`)
	f.Add(`event.data["a"].matches('x\'y') == null`)
	f.Fuzz(func(t *testing.T, match string) {
		r, err := compileRule(Rule{Match: match})
		if err != nil {
			return
		}
		var event map[string]any
		require.NoError(t, json.Unmarshal([]byte(sample), &event))
		r.matches(event)
	})
}
