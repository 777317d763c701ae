package bus

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Whatever the keys: everything runs, the functions of a key in their order and never two at a time, and nothing of a
// key remains afterwards.
func TestLanesKeepOrderWithinAKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfN(rapid.SampledFrom([]string{"", "a", "b", "c"}), 0, 60).Draw(t, "keys")
		var l lanes
		var mu sync.Mutex
		ran := make(map[string][]int)
		busy := make(map[string]int)
		for i, key := range keys {
			l.do(key, func() {
				mu.Lock()
				busy[key]++
				if key != "" && busy[key] > 1 {
					t.Errorf("two of key %q at once", key)
				}
				ran[key] = append(ran[key], i)
				mu.Unlock()
				mu.Lock()
				busy[key]--
				mu.Unlock()
			})
		}
		l.wait()
		total := 0
		for key, order := range ran {
			total += len(order)
			for i := 1; key != "" && i < len(order); i++ {
				if order[i-1] > order[i] {
					t.Fatalf("key %q ran in the order %v", key, order)
				}
			}
		}
		if total != len(keys) {
			t.Fatalf("%d of %d ran", total, len(keys))
		}
		if len(l.waiting) != 0 {
			t.Fatalf("lanes remain: %v", l.waiting)
		}
	})
}

// A key that waits holds up neither other keys nor those without one.
func TestLanesDoNotWaitForOneAnother(t *testing.T) {
	var l lanes
	hold := make(chan struct{})
	passed := make(chan string, 3)
	l.do("slow", func() { <-hold })
	l.do("slow", func() { passed <- "slow" })
	l.do("quick", func() { passed <- "quick" })
	l.do("", func() { passed <- "none" })
	require.ElementsMatch(t, []string{"quick", "none"}, []string{<-passed, <-passed})
	close(hold)
	require.Equal(t, "slow", <-passed)
	l.wait()
}
