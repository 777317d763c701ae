package redisbus

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bannou-mesh/bannou/pkg/bus/internal/routes"
)

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, topic string
		want           bool
	}{
		{"a.b", "a.b", true}, {"a.b", "a.c", false}, {"a.b", "a.b.c", false}, {"a.b.c", "a.b", false},
		{"a.*", "a.b", true}, {"a.*", "a", false}, {"a.*", "a.b.c", false}, {"*.b", "a.b", true}, {"*", "a", true}, {"*", "a.b", false},
		{"#", "a.b.c", true}, {"a.#", "a", true}, {"a.#", "a.b.c", true}, {"a.#", "b", false}, {"#.c", "a.b.c", true}, {"#.c", "c", true},
		{"#.c", "a.b", false}, {"a.#.d", "a.d", true}, {"a.#.d", "a.b.c.d", true}, {"a.#.d", "a.b.c", false}, {"a.#.*", "a", false},
		{"a.#.*", "a.b", true}, {"#.#", "a", true}, {"a.#.#", "a", true}, {"*.#", "a", true}, {"a.*.#", "a", false},
	} {
		require.Equal(t, c.want, matches(c.pattern, c.topic), "%q %q", c.pattern, c.topic)
	}
}

// One pattern and one topic are judged here as the tree judges them that finds all who are bound.
func TestPatternsMatchAsRoutesDo(t *testing.T) {
	words := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*", "#"}), 1, 4)
	topics := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 5)
	rapid.Check(t, func(t *rapid.T) {
		pattern, topic := strings.Join(words.Draw(t, "pattern"), "."), strings.Join(topics.Draw(t, "topic"), ".")
		var bound routes.Tree[string]
		bound.Add(pattern, "queue")
		require.Equal(t, len(bound.Match(topic)) > 0, matches(pattern, topic), "pattern %q, topic %q", pattern, topic)
	})
}
