package bus

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func keyed(key string) *work {
	return &work{message: &Message{Headers: map[string]string{HeaderPartitionKey: key}}}
}

// Whatever the keys: everything is done, the works of a key in their order and never two at a time, and nothing of a key
// remains afterwards.
func TestCrewKeepsOrderWithinAKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfN(rapid.SampledFrom([]string{"", "a", "b", "c"}), 0, 60).Draw(t, "keys")
		var c crew
		var mu sync.Mutex
		number := make(map[*work]int)
		done := make(map[string][]int)
		busy := make(map[string]int)
		do := func(w *work) {
			for ; w != nil; w = c.leave(w) {
				mu.Lock()
				busy[w.key()]++
				if w.key() != "" && busy[w.key()] > 1 {
					t.Errorf("two of key %q at once", w.key())
				}
				done[w.key()] = append(done[w.key()], number[w])
				mu.Unlock()
				mu.Lock()
				busy[w.key()]--
				mu.Unlock()
			}
		}
		var running sync.WaitGroup
		for i, key := range keys {
			w := keyed(key)
			mu.Lock()
			number[w] = i
			mu.Unlock()
			if c.enter(w) {
				running.Go(func() { do(w) })
			}
		}
		<-c.emptied()
		running.Wait()
		total := 0
		for key, order := range done {
			total += len(order)
			for i := 1; key != "" && i < len(order); i++ {
				if order[i-1] > order[i] {
					t.Fatalf("key %q was done in the order %v", key, order)
				}
			}
		}
		if total != len(keys) {
			t.Fatalf("%d of %d were done", total, len(keys))
		}
		if len(c.waiting) != 0 || len(c.inHand) != 0 {
			t.Fatalf("something remains: %v, %v", c.waiting, c.inHand)
		}
	})
}

// A key that is busy holds up neither other keys nor those without one.
func TestCrewKeysDoNotWaitForOneAnother(t *testing.T) {
	var c crew
	slow, behind := keyed("slow"), keyed("slow")
	require.True(t, c.enter(slow))
	require.False(t, c.enter(behind))
	require.True(t, c.enter(keyed("quick")))
	require.True(t, c.enter(keyed("")))
	require.True(t, c.enter(keyed("")))
	require.Same(t, behind, c.leave(slow))
	require.Nil(t, c.leave(behind))
	require.True(t, c.enter(keyed("slow")))
}

// What is abandoned is given up once, and its handler finds out.
func TestCrewAbandons(t *testing.T) {
	var c crew
	deaf, settling, queued := keyed("k"), keyed(""), keyed("k")
	for _, w := range []*work{deaf, settling, queued} {
		c.enter(w)
	}
	require.True(t, settling.claim())
	require.ElementsMatch(t, []*work{deaf, queued}, c.abandon())
	require.False(t, deaf.claim(), "it was settled by who abandoned it")
	require.Nil(t, c.leave(deaf), "what waited behind it was given up too")
	c.leave(queued)
	idle := c.emptied()
	select {
	case <-idle:
		t.Fatal("one is still being settled")
	default:
	}
	c.leave(settling)
	<-idle
}
