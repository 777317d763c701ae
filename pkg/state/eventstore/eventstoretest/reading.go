package eventstoretest

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

func readingRanges(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	other := eventstore.StreamID{Category: "other", ID: "a"}
	for range 3 { // positions 1 2 3, 4 5 6, 7 8 9
		mustAppend(t, s, stream("a"), eventstore.Any, event("x"))
		mustAppend(t, s, other, eventstore.Any, event("x"))
		mustAppend(t, s, stream("b"), eventstore.Any, event("x"))
	}
	for _, c := range []struct {
		options                  eventstore.ReadOptions
		all, category, ofStreamA []int64 // positions
	}{
		{eventstore.ReadOptions{}, []int64{1, 2, 3, 4, 5, 6, 7, 8, 9}, []int64{1, 3, 4, 6, 7, 9}, []int64{1, 4, 7}},
		{eventstore.ReadOptions{From: 2}, []int64{2, 3, 4, 5, 6, 7, 8, 9}, []int64{3, 4, 6, 7, 9}, []int64{4, 7}},
		{eventstore.ReadOptions{From: 2, Limit: 2}, []int64{2, 3}, []int64{3, 4}, []int64{4, 7}},
		{eventstore.ReadOptions{From: 10}, nil, nil, nil},
		{eventstore.ReadOptions{Backward: true}, []int64{9, 8, 7, 6, 5, 4, 3, 2, 1}, []int64{9, 7, 6, 4, 3, 1}, []int64{7, 4, 1}},
		{eventstore.ReadOptions{Backward: true, From: 2}, []int64{2, 1}, []int64{1}, []int64{4, 1}},
		{eventstore.ReadOptions{Backward: true, Limit: 1}, []int64{9}, []int64{9}, []int64{7}},
		{eventstore.ReadOptions{Backward: true, From: 100}, []int64{9, 8, 7, 6, 5, 4, 3, 2, 1}, []int64{9, 7, 6, 4, 3, 1}, []int64{7, 4, 1}},
	} {
		require.ElementsMatch(t, c.all, positions(collect(t, s.ReadAll(t.Context(), c.options))), "%+v", c.options)
		for want, got := range map[*[]int64][]eventstore.Recorded{
			&c.all:       collect(t, s.ReadAll(t.Context(), c.options)),
			&c.category:  collect(t, s.ReadCategory(t.Context(), "test", c.options)),
			&c.ofStreamA: collect(t, s.ReadStream(t.Context(), stream("a"), c.options)),
		} {
			require.True(t, slices.Equal(*want, positions(got)), "%+v: want %v, got %v", c.options, *want, positions(got))
		}
	}
	for e, err := range s.ReadAll(t.Context(), eventstore.ReadOptions{}) { // who has seen enough leaves
		require.NoError(t, err)
		if e.Position == 2 {
			break
		}
	}
	require.Empty(t, collect(t, s.ReadCategory(t.Context(), "none", eventstore.ReadOptions{})))
}

// Events of several pages come once each, in order, in both directions.
func morePages(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	const total = 1500
	for n := 0; n < total; n += 500 {
		events := make([]eventstore.Event, 500)
		for i := range events {
			events[i] = event(strconv.Itoa(n + i))
		}
		mustAppend(t, s, stream("a"), eventstore.Expected(n), events...)
	}
	forward := CheckOrder(t, s)
	require.Len(t, forward, total)
	for i, e := range forward {
		require.Equal(t, strconv.Itoa(i), e.Type)
	}
	backward := collect(t, s.ReadAll(t.Context(), eventstore.ReadOptions{Backward: true}))
	slices.Reverse(backward)
	require.Equal(t, forward, backward)
	require.Equal(t, forward, collect(t, s.ReadStream(t.Context(), stream("a"), eventstore.ReadOptions{})))
	require.Equal(t, forward[:1100], collect(t, s.ReadCategory(t.Context(), "test", eventstore.ReadOptions{Limit: 1100})))
}

// Events of the largest size, more of them than a page holds.
func largeEvent(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	data := jsontext.Value(`"` + strings.Repeat("'", eventstore.MaxDataBytes-2) + `"`)
	for range 2 {
		mustAppend(t, s, stream("a"), eventstore.Any, eventstore.Event{Type: "large", Data: data},
			eventstore.Event{Type: "large", Data: data}, eventstore.Event{Type: "large", Data: data})
	}
	all := CheckOrder(t, s)
	require.Len(t, all, 6)
	for _, e := range all {
		require.True(t, bytes.Equal(data, e.Data)) // without a diff of 1 MiB
	}
}

// That a category is said to be dense changes nothing of what is read, also where it is not.
func denseCategories(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	var want []int64
	for _, part := range []struct {
		category string
		events   int
	}{{"dense", 30}, {"other", 100}, {"dense", 5}, {"other", 7}, {"dense", 12}} {
		events := make([]eventstore.Event, part.events)
		for i := range events {
			events[i] = event("x")
		}
		appended, err := s.Append(t.Context(), eventstore.StreamID{Category: part.category, ID: "a"}, eventstore.Any, events...)
		require.NoError(t, err)
		for i := range int64(part.events) {
			if part.category == "dense" {
				want = append(want, appended.Position-int64(part.events)+1+i)
			}
		}
	}
	for _, limit := range []int{1, 7, 10, 30, 40} {
		var got []int64
		r := eventstore.Range{Category: "dense", From: 1, Limit: limit, Dense: true}
		for more := true; more; {
			var events []eventstore.Recorded
			var err error
			events, more, err = s.Engine().Read(t.Context(), r)
			require.NoError(t, err)
			require.LessOrEqual(t, len(events), limit)
			for _, e := range events {
				got = append(got, e.Position)
				r.From = e.Position + 1
			}
		}
		require.Equal(t, want, got, "%d at once", limit)
	}
}
