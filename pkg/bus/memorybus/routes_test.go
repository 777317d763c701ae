package memorybus

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

// Whatever is bound and unbound: a topic finds exactly the queues that the definition says, each once, and a tree that
// nothing is bound to is empty.
func TestRoutesMatchTheirDefinition(t *testing.T) {
	words := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*", "#"}), 1, 4)
	topics := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 5)
	rapid.Check(t, func(t *rapid.T) {
		type bound struct {
			pattern []string
			queue   *queue
		}
		queues := []*queue{{name: "1"}, {name: "2"}, {name: "3"}}
		var all []bound
		r := &routes{}
		for range rapid.IntRange(0, 8).Draw(t, "bindings") {
			b := bound{words.Draw(t, "pattern"), rapid.SampledFrom(queues).Draw(t, "queue")}
			again := false
			for _, other := range all {
				again = again || other.queue == b.queue && strings.Join(other.pattern, ".") == strings.Join(b.pattern, ".")
			}
			if !again { // the driver binds once
				r.add(strings.Join(b.pattern, "."), b.queue)
				all = append(all, b)
			}
		}
		check := func() {
			topic := topics.Draw(t, "topic")
			want := map[*queue]bool{}
			for _, b := range all {
				if matches(b.pattern, topic) {
					want[b.queue] = true
				}
			}
			got := r.match(strings.Join(topic, "."))
			require.Len(t, got, len(want), "topic %v, bindings %v", topic, all)
			for _, q := range got {
				require.True(t, want[q])
			}
		}
		check()
		for len(all) > 0 {
			r.remove(strings.Join(all[0].pattern, "."), all[0].queue)
			all = all[1:]
			check()
		}
		require.Empty(t, r.next)
	})
}
