package eventstoretest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// Every version of an aggregate can be seen again, with snapshots of later ones and of earlier ones.
func stateThen(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	const versions = 12
	for name, policy := range map[string]eventstore.SnapshotPolicy{"plain": {}, "snapshots": {Events: 5}} {
		a := counters(t, s, policy, 0, nil)
		for range versions {
			_, err := a.Decide(t.Context(), name, add(1))
			require.NoError(t, err)
		}
		id := eventstore.StreamID{Category: "counter", ID: name}
		events := collect(t, s.ReadStream(t.Context(), id, eventstore.ReadOptions{}))
		for version := range versions + 1 {
			loaded, err := a.LoadVersion(t.Context(), name, int64(version))
			require.NoError(t, err)
			require.Equal(t, eventstore.Loaded[counter]{State: counter{Sum: version}, Version: int64(version)}, loaded, name)
		}
		_, err := a.LoadVersion(t.Context(), name, versions+1)
		require.ErrorIs(t, err, state.ErrNotFound)
		_, err = a.LoadVersion(t.Context(), name, -1)
		require.ErrorIs(t, err, state.ErrInvalid)

		instants := []time.Time{events[0].RecordedAt.Add(-time.Microsecond), time.Now().Add(time.Hour)}
		for _, e := range events {
			instants = append(instants, e.RecordedAt, e.RecordedAt.Add(time.Microsecond))
		}
		for _, instant := range instants {
			want := int64(0) // several events may have one instant
			for _, e := range events {
				if !e.RecordedAt.After(instant) {
					want = e.Version
				}
			}
			loaded, err := a.LoadAt(t.Context(), name, instant)
			require.NoError(t, err)
			require.Equal(t, eventstore.Loaded[counter]{State: counter{Sum: int(want)}, Version: want}, loaded, name)
			version, err := s.VersionAt(t.Context(), id, instant)
			require.NoError(t, err)
			require.Equal(t, want, version)
		}

		changes, err := a.Diff(t.Context(), name, 3, 10)
		require.NoError(t, err)
		require.Equal(t, "[{/Sum 3 10}]", fmt.Sprint(changes))
		changes, err = a.Diff(t.Context(), name, 4, 4)
		require.NoError(t, err)
		require.Empty(t, changes)
	}
	version, err := s.VersionAt(t.Context(), stream("none"), time.Now())
	require.NoError(t, err)
	require.Zero(t, version)
}

func streamsOfCategory(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	for _, id := range []string{"b", "a", "é", "A", "b/c", "a"} {
		mustAppend(t, s, stream(id), eventstore.Any, event("x"))
	}
	mustAppend(t, s, eventstore.StreamID{Category: "other", ID: "c"}, eventstore.Any, event("x"))
	list := func(after string, limit int) (text string) {
		all, err := s.Streams(t.Context(), "test", after, limit)
		require.NoError(t, err)
		for _, v := range all {
			text += fmt.Sprint(v.Stream.ID, "=", v.Version, " ")
		}
		return text
	}
	require.Equal(t, "A=1 a=2 b=1 b/c=1 é=1 ", list("", 100))
	require.Equal(t, "A=1 a=2 ", list("", 2))
	require.Equal(t, "b=1 b/c=1 ", list("a", 2))
	require.Empty(t, list("é", 2))
	_, err := s.Streams(t.Context(), "", "", 1)
	require.ErrorIs(t, err, state.ErrInvalid)
	_, err = s.Streams(t.Context(), "test", "", 0)
	require.ErrorIs(t, err, state.ErrInvalid)
}

// Who follows sees what there is, then what comes: here of another process, by its hint alone.
func followed(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	other := eventstore.New(s.Engine(), eventstore.Config{OnAppend: func(context.Context, int64) { s.Hint() }})
	mustAppend(t, s, stream("a"), 0, event("x"))
	mustAppend(t, s, stream("b"), 0, event("x"))
	for _, c := range []struct {
		options eventstore.FollowOptions
		want    []int64 // of what there is
	}{
		{eventstore.FollowOptions{}, []int64{1, 2}},
		{eventstore.FollowOptions{From: 2}, []int64{2}},
		{eventstore.FollowOptions{Category: "test", From: 1}, []int64{1, 2}},
		{eventstore.FollowOptions{Category: "test", ID: "a", From: 1}, []int64{1}},
	} {
		c.options.Poll = time.Hour
		ctx, end := context.WithTimeout(t.Context(), patience)
		var seen []int64
		var came eventstore.Appended
		for e, err := range s.Follow(ctx, c.options) {
			require.NoError(t, err)
			seen = append(seen, e.Position)
			if len(seen) == len(c.want) && e.Position <= 2 {
				require.Equal(t, c.want, seen)
				// It comes in the midst of the page, or after: when it is looked again, or by the hint.
				came = mustAppend(t, other, stream("a"), eventstore.Any, event("y"))
			}
			if came.Position > 0 && e.Position == came.Position {
				break
			}
		}
		require.NoError(t, ctx.Err(), "%+v", c.options)
		end()
		for range s.Follow(ctx, c.options) {
			t.Fatal("its context has ended")
		}
		s = eventstore.New(open(t, eventstore.Config{}).Engine(), eventstore.Config{})
		other = eventstore.New(s.Engine(), eventstore.Config{OnAppend: func(context.Context, int64) { s.Hint() }})
		mustAppend(t, s, stream("a"), 0, event("x"))
		mustAppend(t, s, stream("b"), 0, event("x"))
	}
	for _, err := range s.Follow(t.Context(), eventstore.FollowOptions{Category: "A b"}) {
		require.ErrorIs(t, err, state.ErrInvalid)
	}
}
