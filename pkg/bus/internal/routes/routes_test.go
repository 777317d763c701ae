package routes

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// matches is the definition, word by word.
func matches(pattern, topic []string) bool {
	switch {
	case len(pattern) == 0:
		return len(topic) == 0
	case pattern[0] == "#":
		return matches(pattern[1:], topic) || len(topic) > 0 && matches(pattern, topic[1:])
	case len(topic) == 0:
		return false
	default:
		return (pattern[0] == "*" || pattern[0] == topic[0]) && matches(pattern[1:], topic[1:])
	}
}

// Whatever is bound and unbound: a topic finds exactly those that the definition says, each once, and a tree that
// nothing is bound to is empty.
func TestRoutesMatchTheirDefinition(t *testing.T) {
	words := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*", "#"}), 1, 4)
	topics := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 5)
	rapid.Check(t, func(t *rapid.T) {
		type bound struct {
			pattern []string
			who     string
		}
		names := []string{"1", "2", "3"}
		var all []bound
		r := &Tree[string]{}
		for range rapid.IntRange(0, 8).Draw(t, "bindings") {
			b := bound{words.Draw(t, "pattern"), rapid.SampledFrom(names).Draw(t, "who")}
			again := false
			for _, other := range all {
				again = again || other.who == b.who && strings.Join(other.pattern, ".") == strings.Join(b.pattern, ".")
			}
			if !again { // drivers bind once
				r.Add(strings.Join(b.pattern, "."), b.who)
				all = append(all, b)
			}
		}
		check := func() {
			topic := topics.Draw(t, "topic")
			want := map[string]bool{}
			for _, b := range all {
				if matches(b.pattern, topic) {
					want[b.who] = true
				}
			}
			got := r.Match(strings.Join(topic, "."))
			require.Len(t, got, len(want), "topic %v, bindings %v", topic, all)
			for _, who := range got {
				require.True(t, want[who])
			}
		}
		check()
		for len(all) > 0 {
			r.Remove(strings.Join(all[0].pattern, "."), all[0].who)
			all = all[1:]
			check()
		}
		require.Empty(t, r.next)
	})
}
