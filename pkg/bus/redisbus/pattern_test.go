package redisbus

import (
	"testing"

	"github.com/stretchr/testify/require"
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
