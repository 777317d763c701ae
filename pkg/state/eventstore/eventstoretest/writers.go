package eventstoretest

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// Of those who expect one version, one has it, whoever it is; the others are told the version that there is.
func oneVersionManyWriters(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	const writers, versions = 16, 20
	won := make([]int, versions)
	var mu sync.Mutex
	var wait sync.WaitGroup
	for range writers {
		wait.Go(func() {
			for version := 0; version < versions; {
				_, err := s.Append(t.Context(), stream("a"), eventstore.Expected(version), event("x"))
				var conflict *eventstore.VersionError
				switch {
				case err == nil:
					mu.Lock()
					won[version]++
					mu.Unlock()
					version++
				case errors.As(err, &conflict):
					version = int(conflict.Actual)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	require.Len(t, CheckOrder(t, s), versions)
	for version, n := range won {
		require.Equal(t, 1, n, "version %d was won %d times", version, n)
	}
}

// While many append, to streams of their own and to one that they share, a reader who follows the end sees every position, in order.
func manyWritersNoGap(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	const writers, each = 16, 12
	done := make(chan struct{})
	var seen int64
	var follower sync.WaitGroup
	follower.Go(func() {
		for last := false; ; {
			select {
			case <-done:
				last = true
			default:
			}
			for e, err := range s.ReadAll(t.Context(), eventstore.ReadOptions{From: seen + 1}) {
				if err != nil || e.Position != seen+1 {
					t.Errorf("position %d after %d: %v", e.Position, seen, err)
					return
				}
				seen++
			}
			if last {
				return
			}
		}
	})
	var wait sync.WaitGroup
	acknowledged := make([][]eventstore.Appended, writers)
	for w := range writers {
		wait.Go(func() {
			for i := range each {
				own, err := s.AppendAll(t.Context(),
					eventstore.Append{Stream: stream(strconv.Itoa(w)), Expected: eventstore.Expected(2 * i), Events: []eventstore.Event{event("own"), event("own")}},
					eventstore.Append{Stream: stream("shared"), Expected: eventstore.Any, Events: []eventstore.Event{event("shared")}})
				if err != nil {
					t.Error(err)
					return
				}
				acknowledged[w] = append(acknowledged[w], own...)
			}
		})
	}
	wait.Wait()
	close(done)
	follower.Wait()
	all := CheckOrder(t, s)
	require.Len(t, all, writers*each*3)
	require.EqualValues(t, len(all), seen)
	for _, list := range acknowledged {
		for _, a := range list {
			e := all[a.Position-1]
			require.Equal(t, eventstore.Appended{Stream: e.Stream, Version: e.Version, Position: e.Position}, a)
		}
	}
}

// Random appends, repetitions among them, have the outcome that a plain model says.
func besideModel(t *testing.T, open Open) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := open(t, eventstore.Config{})
	versions := map[eventstore.StreamID]int64{}
	position := int64(0)
	type made struct {
		appends  []eventstore.Append
		appended []eventstore.Appended
	}
	var history []made
	for range 150 {
		if len(history) > 0 && random.IntN(5) == 0 {
			old := history[random.IntN(len(history))]
			again, err := s.AppendAll(t.Context(), old.appends...)
			require.NoError(t, err)
			for i := range again {
				require.True(t, again[i].Repeated)
				again[i].Repeated = false
			}
			require.Equal(t, old.appended, again)
			continue
		}
		var appends []eventstore.Append
		var want []eventstore.Appended
		conflict := false
		end := position
		streams, most := 1+random.IntN(3), 3
		if random.IntN(2) == 0 { // one event for one stream may go a way of its own
			streams, most = 1, 1
		}
		for _, i := range random.Perm(4)[:streams] {
			a := eventstore.Append{Stream: stream(strconv.Itoa(i)), Expected: eventstore.Any}
			version := versions[a.Stream]
			if random.IntN(2) == 0 {
				a.Expected = eventstore.Expected(max(version-1+int64(random.IntN(5)+1)/3, 0))
				if random.IntN(4) == 0 {
					a.Expected = eventstore.NoStream
				}
				conflict = conflict || int64(a.Expected) != version
			}
			for range 1 + random.IntN(most) {
				a.Events = append(a.Events, withID(event("x")))
			}
			end += int64(len(a.Events))
			appends = append(appends, a)
			want = append(want, eventstore.Appended{Stream: a.Stream, Version: version + int64(len(a.Events)), Position: end})
		}
		got, err := s.AppendAll(t.Context(), appends...)
		if conflict {
			require.ErrorIs(t, err, state.ErrConflict)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, got)
		position = end
		for _, a := range got {
			versions[a.Stream] = a.Version
		}
		history = append(history, made{appends, got})
	}
	require.Len(t, CheckOrder(t, s), int(position))
}
