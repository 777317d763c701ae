package eventstoretest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// What happens to a counter.
type (
	added  struct{ N int }
	closed struct{}
)

type counter struct {
	Sum    int
	Closed bool
}

var errClosed = errors.New("it is closed")

// counters is the aggregate of the suite. applied counts the events that were replayed.
func counters(t testing.TB, s *eventstore.Store, policy eventstore.SnapshotPolicy, schema int, applied *int) *eventstore.Aggregate[counter] {
	t.Helper()
	types, err := eventstore.NewTypes(eventstore.TypeOf[added]("added", 1), eventstore.TypeOf[closed]("closed", 1))
	require.NoError(t, err)
	a, err := eventstore.NewAggregate(s, eventstore.AggregateConfig[counter]{Category: "counter", Types: types, Snapshots: policy, Schema: schema, Tries: 100,
		Apply: func(c *counter, event any) error {
			if applied != nil {
				*applied++
			}
			switch e := event.(type) {
			case added:
				if e.N < 0 {
					return fmt.Errorf("%d cannot be added", e.N)
				}
				c.Sum += e.N
			case closed:
				c.Closed = true
			}
			return nil
		}})
	require.NoError(t, err)
	return a
}

func add(n int) func(eventstore.Loaded[counter]) ([]any, error) {
	return func(c eventstore.Loaded[counter]) ([]any, error) {
		if c.State.Closed {
			return nil, errClosed
		}
		if n == 0 {
			return nil, nil
		}
		return []any{added{N: n}}, nil
	}
}

func decisions(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	a := counters(t, s, eventstore.SnapshotPolicy{}, 0, nil)
	loaded, err := a.Load(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[counter]{}, loaded)

	metadata := eventstore.Metadata{CausationID: "c", Actor: "Ada"}
	after, err := a.Decide(eventstore.WithMetadata(t.Context(), metadata), "a", add(2))
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[counter]{State: counter{Sum: 2}, Version: 1}, after)
	after, err = a.Decide(t.Context(), "a", func(eventstore.Loaded[counter]) ([]any, error) { return []any{added{N: 3}, closed{}}, nil })
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[counter]{State: counter{Sum: 5, Closed: true}, Version: 3}, after)
	loaded, err = a.Load(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, after, loaded)

	_, err = a.Decide(t.Context(), "a", add(1))
	require.ErrorIs(t, err, errClosed, "what was decided is returned as it is")
	_, err = a.Decide(t.Context(), "b", add(-1))
	require.ErrorContains(t, err, "cannot be added", "what cannot be applied is not appended")
	_, err = a.Decide(t.Context(), "b", func(eventstore.Loaded[counter]) ([]any, error) { return []any{"a string"}, nil })
	require.ErrorIs(t, err, state.ErrInvalid)
	_, err = a.Decide(t.Context(), "b", add(0))
	require.NoError(t, err)
	all := CheckOrder(t, s)
	require.Len(t, all, 3)
	require.Equal(t, metadata, all[0].Metadata)
	require.Equal(t, eventstore.Metadata{CausationID: all[0].ID, Actor: "Ada"}, all[0].Caused())
}

// Of decisions that are made at the same time none is lost, and each sees those before it.
func decisionsTogether(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	a := counters(t, s, eventstore.SnapshotPolicy{Events: 7}, 0, nil)
	const deciders, each = 8, 8
	var mu sync.Mutex
	var sums []int
	var wait sync.WaitGroup
	for range deciders {
		wait.Go(func() {
			for range each {
				after, err := a.Decide(t.Context(), "a", add(1))
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				sums = append(sums, after.State.Sum)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	slices.Sort(sums)
	for i, sum := range sums {
		require.Equal(t, i+1, sum)
	}
	loaded, err := a.Load(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[counter]{State: counter{Sum: deciders * each}, Version: deciders * each}, loaded)
}

// A snapshot spares the events before it, and changes nothing else.
func snapshots(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	for name, policy := range map[string]eventstore.SnapshotPolicy{"by events": {Events: 10}, "by bytes": {Bytes: 10 * len(`{"N":1}`)}} {
		applied := 0
		a := counters(t, s, policy, 0, &applied)
		for range 25 {
			_, err := a.Decide(t.Context(), name, add(1))
			require.NoError(t, err)
		}
		applied = 0
		loaded, err := a.Load(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, eventstore.Loaded[counter]{State: counter{Sum: 25}, Version: 25}, loaded)
		require.Equal(t, 5, applied, "events behind the last snapshot, %s", name)

		applied = 0
		other := counters(t, s, policy, 2, &applied)
		again, err := other.Load(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, loaded, again)
		require.Equal(t, 25, applied, "the state has another form")
		_, err = other.Decide(t.Context(), name, add(1))
		require.NoError(t, err)
		applied = 0
		_, err = other.Load(t.Context(), name)
		require.NoError(t, err)
		require.Zero(t, applied)
	}
}

// An aggregate gives up when its context ends.
func decisionsEnd(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	a := counters(t, s, eventstore.SnapshotPolicy{}, 0, nil)
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	_, err := a.Decide(ctx, "a", func(c eventstore.Loaded[counter]) ([]any, error) {
		if tries++; tries == 3 {
			cancel()
		}
		mustAppend(t, s, eventstore.StreamID{Category: "counter", ID: "a"}, eventstore.Any, eventstore.Event{Type: "added", Data: []byte(`{"N":1}`)}) // another is faster
		return []any{added{N: 1}}, nil
	})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 3, tries)
}

// A snapshot is read with what is behind it, a page at a time, and one of another history is not.
func restored(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	stream := eventstore.StreamID{Category: "counter", ID: "a"}
	events := make([]eventstore.Event, 9)
	for i := range events {
		events[i] = event("added")
	}
	_, err := s.Append(t.Context(), stream, eventstore.NoStream, events...)
	require.NoError(t, err)
	var all []eventstore.Recorded
	for e, err := range s.ReadStream(t.Context(), stream, eventstore.ReadOptions{}) {
		require.NoError(t, err)
		all = append(all, e)
	}
	restore := func(schema, limit int) (eventstore.Snapshot, bool, []eventstore.Recorded, bool) {
		t.Helper()
		snapshot, found, behind, more, err := s.Engine().Restore(t.Context(), stream, schema, limit)
		require.NoError(t, err)
		return snapshot, found, behind, more
	}
	saved := eventstore.Snapshot{Stream: stream, Schema: 1, Version: 4, EventID: all[3].ID, Data: []byte(`{"sum":4}`)}
	_, found, _, _ := restore(1, 10)
	require.False(t, found, "there is none")
	require.NoError(t, s.Engine().SaveSnapshot(t.Context(), saved))
	for limit, more := range map[int]bool{3: true, 10: false} {
		snapshot, found, behind, rest := restore(1, limit)
		require.True(t, found)
		require.Equal(t, saved, snapshot)
		require.Equal(t, all[4:min(4+limit, 9)], behind)
		require.Equal(t, more, rest)
	}
	_, found, _, _ = restore(2, 10)
	require.False(t, found, "the state has another form")
	for schema, other := range map[int]eventstore.Snapshot{2: {Version: 4, EventID: all[4].ID}, 3: {Version: 40, EventID: all[3].ID}} {
		other.Stream, other.Schema, other.Data = stream, schema, []byte("{}")
		require.NoError(t, s.Engine().SaveSnapshot(t.Context(), other))
		_, found, behind, _ := restore(schema, 10)
		require.False(t, found, "version %d has another event", other.Version)
		require.Empty(t, behind)
	}
}
