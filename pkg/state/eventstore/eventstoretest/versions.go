package eventstoretest

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

func expectedVersions(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	mustAppend(t, s, stream("there"), eventstore.NoStream, event("1"), event("2"))
	for _, c := range []struct {
		stream   string
		expected eventstore.Expected
		actual   int64 // of a conflict; -1: there is none
	}{
		{"there", eventstore.NoStream, 2},
		{"there", 1, 2},
		{"there", 3, 2},
		{"there", 2, -1},
		{"there", eventstore.Any, -1},
		{"new", 1, 0},
		{"new", eventstore.NoStream, -1},
		{"newer", eventstore.Any, -1},
	} {
		for _, several := range []bool{false, true} { // one event may go another way than several
			name := c.stream
			events := []eventstore.Event{event("x")}
			if several {
				name += ", several"
				events = append(events, event("y"))
				if c.stream == "there" {
					_, err := s.Append(t.Context(), stream(name), eventstore.NoStream, event("1"), event("2"))
					if err != nil {
						require.ErrorIs(t, err, state.ErrConflict)
					}
				}
			}
			before := len(collect(t, s.ReadAll(t.Context(), eventstore.ReadOptions{})))
			_, err := s.Append(t.Context(), stream(name), c.expected, events...)
			after := len(CheckOrder(t, s))
			if c.actual < 0 {
				require.NoError(t, err, "%s at %d", name, c.expected)
				require.Equal(t, before+len(events), after)
				continue
			}
			require.ErrorIs(t, err, state.ErrConflict, "%s at %d", name, c.expected)
			var version *eventstore.VersionError
			require.ErrorAs(t, err, &version)
			require.Equal(t, eventstore.VersionError{Stream: stream(name), Expected: c.expected, Actual: c.actual}, *version)
			require.Equal(t, before, after)
		}
	}
}

// What is expected counts each time anew, whatever was expected before: a statement that an engine has prepared must not remember it.
func expectedInTurn(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	for i := range 6 {
		id := stream(strconv.Itoa(i))
		if i%2 == 0 {
			mustAppend(t, s, id, eventstore.Any, event("1"))
		} else {
			mustAppend(t, s, id, eventstore.NoStream, event("1"))
		}
		for version := int64(1); version < 4; version++ {
			for _, wrong := range []eventstore.Expected{eventstore.NoStream, eventstore.Expected(version - 1), eventstore.Expected(version + 1)} {
				_, err := s.Append(t.Context(), id, wrong, event("x"))
				require.ErrorIs(t, err, state.ErrConflict, "stream %d has version %d, expected is %d", i, version, wrong)
			}
			if (int64(i)+version)%2 == 0 {
				mustAppend(t, s, id, eventstore.Any, event("2"))
			} else {
				mustAppend(t, s, id, eventstore.Expected(version), event("2"))
			}
		}
	}
	require.Len(t, CheckOrder(t, s), 24)
}

// All of an append is made, or none.
func severalStreams(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	appended, err := s.AppendAll(t.Context(),
		eventstore.Append{Stream: stream("a"), Events: []eventstore.Event{event("1"), event("2")}},
		eventstore.Append{Stream: stream("b"), Expected: eventstore.Any, Events: []eventstore.Event{event("3")}},
		eventstore.Append{Stream: eventstore.StreamID{Category: "other", ID: "a"}, Events: []eventstore.Event{event("4")}})
	require.NoError(t, err)
	require.Equal(t, []eventstore.Appended{
		{Stream: stream("a"), Version: 2, Position: 2},
		{Stream: stream("b"), Version: 1, Position: 3},
		{Stream: eventstore.StreamID{Category: "other", ID: "a"}, Version: 1, Position: 4},
	}, appended)

	_, err = s.AppendAll(t.Context(),
		eventstore.Append{Stream: stream("a"), Expected: 2, Events: []eventstore.Event{event("5")}},
		eventstore.Append{Stream: stream("b"), Expected: 2, Events: []eventstore.Event{event("6")}})
	var version *eventstore.VersionError
	require.ErrorAs(t, err, &version)
	require.Equal(t, stream("b"), version.Stream)
	require.Len(t, CheckOrder(t, s), 4)
}

// An append that is done again with its ids is answered as the first time, whatever was appended since.
func repeatedAppends(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	one := withID(event("1"))
	two, three := withID(event("2")), withID(event("3"))
	other := withID(event("4"))
	first := mustAppend(t, s, stream("a"), eventstore.NoStream, one)
	both := []eventstore.Append{
		{Stream: stream("a"), Expected: 1, Events: []eventstore.Event{two, three}},
		{Stream: stream("b"), Expected: eventstore.NoStream, Events: []eventstore.Event{other}},
	}
	second, err := s.AppendAll(t.Context(), both...)
	require.NoError(t, err)
	mustAppend(t, s, stream("a"), eventstore.Any, event("5"))

	for _, expected := range []eventstore.Expected{eventstore.NoStream, eventstore.Any, 4} {
		again := mustAppend(t, s, stream("a"), expected, one)
		first.Repeated = true
		require.Equal(t, first, again)
	}
	again, err := s.AppendAll(t.Context(), both...)
	require.NoError(t, err)
	for i := range second {
		second[i].Repeated = true
	}
	require.Equal(t, second, again)
	require.Len(t, CheckOrder(t, s), 5)
}

// An id stands for one event of one stream.
func takenIDs(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	one, two := withID(event("1")), withID(event("2"))
	mustAppend(t, s, stream("a"), eventstore.NoStream, one, two)
	for name, a := range map[string]eventstore.Append{
		"another stream":        {Stream: stream("b"), Events: []eventstore.Event{one}},
		"another stream, any":   {Stream: stream("b"), Expected: eventstore.Any, Events: []eventstore.Event{one}},
		"another order":         {Stream: stream("a"), Expected: 2, Events: []eventstore.Event{two, one}},
		"a new one beside it":   {Stream: stream("a"), Expected: 2, Events: []eventstore.Event{two, withID(event("3"))}},
		"a new one in front":    {Stream: stream("a"), Expected: 2, Events: []eventstore.Event{withID(event("3")), two}},
		"the same one twice":    {Stream: stream("c"), Events: []eventstore.Event{{ID: one.ID, Type: "x", Data: one.Data}, {ID: one.ID, Type: "x", Data: one.Data}}},
		"a new one, a conflict": {Stream: stream("a"), Expected: 7, Events: []eventstore.Event{two, withID(event("3"))}},
	} {
		_, err := s.AppendAll(t.Context(), a)
		require.ErrorIs(t, err, eventstore.ErrIDTaken, name)
		require.NotErrorIs(t, err, state.ErrUnavailable, name)
	}
	require.Len(t, CheckOrder(t, s), 2)
}
