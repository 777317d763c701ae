package mesh_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

func instances(app string, n int) []*mesh.Endpoint {
	all := make([]*mesh.Endpoint, n)
	for i := range all {
		e := endpoint(app, fmt.Sprintf("node-%03d", i))
		all[i] = &e
	}
	return all
}

func TestRoundRobinIsFairWhateverTheSetsAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := mesh.RoundRobin()
		// Several app-ids, taken in any order, with sets that change between rounds.
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			app := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "app")
			all := instances(app, rapid.IntRange(1, 9).Draw(t, "instances"))
			rounds := rapid.IntRange(1, 4).Draw(t, "turns")
			picks := map[string]int{}
			for range rounds * len(all) {
				picks[b.Pick(all).InstanceID]++
			}
			for id, n := range picks {
				if n != rounds {
					t.Fatalf("%s of %d was picked %d times in %d turns", id, len(all), n, rounds)
				}
			}
		}
	})
}

func TestRoundRobinConcurrent(t *testing.T) {
	b := mesh.RoundRobin()
	all := instances("a", 5)
	var mu sync.Mutex
	picks := map[string]int{}
	var callers sync.WaitGroup
	for range 10 {
		callers.Go(func() {
			mine := map[string]int{}
			for range 1000 {
				mine[b.Pick(all).InstanceID]++
			}
			mu.Lock()
			defer mu.Unlock()
			for id, n := range mine {
				picks[id] += n
			}
		})
	}
	callers.Wait()
	for id, n := range picks {
		assert.Equal(t, 2000, n, id)
	}
	assert.Len(t, picks, 5)
	assert.Nil(t, b.Pick(nil))
}
