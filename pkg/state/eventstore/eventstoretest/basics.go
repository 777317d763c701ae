package eventstoretest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// What is read is what was appended, to the byte.
func appendRead(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	head, err := s.Head(t.Context())
	require.NoError(t, err)
	require.Zero(t, head)
	require.Empty(t, collect(t, s.ReadStream(t.Context(), stream("a"), eventstore.ReadOptions{})))

	first := withID(eventstore.Event{Type: "opened", Schema: 3, Data: jsontext.Value(` { "amount": 9007199254740993.10, "by": "\u00e9" } `),
		Metadata: eventstore.Metadata{CausationID: "c", CorrelationID: "r", Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Actor: "é"}})
	require.Equal(t, eventstore.Appended{Stream: stream("a"), Version: 1, Position: 1}, mustAppend(t, s, stream("a"), eventstore.NoStream, first))
	require.Equal(t, eventstore.Appended{Stream: stream("a"), Version: 3, Position: 3}, mustAppend(t, s, stream("a"), 1, event("x"), event("y")))
	require.Equal(t, eventstore.Appended{Stream: stream("a"), Version: 4, Position: 4}, mustAppend(t, s, stream("a"), eventstore.Any, event("z")))

	all := collect(t, s.ReadStream(t.Context(), stream("a"), eventstore.ReadOptions{}))
	require.Len(t, all, 4)
	require.Equal(t, first, all[0].Event)
	require.Equal(t, stream("a"), all[0].Stream)
	require.WithinDuration(t, time.Now(), all[0].RecordedAt, time.Minute)
	require.NotEmpty(t, all[1].ID)
	require.Equal(t, 1, all[1].Schema)
	require.Equal(t, all, CheckOrder(t, s))
	head, err = s.Head(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 4, head)
}

func badArguments(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	good := event("x")
	long := strings.Repeat("x", 256)
	for name, a := range map[string]eventstore.Append{
		"no category":      {Stream: eventstore.StreamID{ID: "a"}, Events: []eventstore.Event{good}},
		"odd category":     {Stream: eventstore.StreamID{Category: "A b", ID: "a"}, Events: []eventstore.Event{good}},
		"no id":            {Stream: eventstore.StreamID{Category: "a"}, Events: []eventstore.Event{good}},
		"long id":          {Stream: stream(long), Events: []eventstore.Event{good}},
		"no UTF-8":         {Stream: stream("\xff"), Events: []eventstore.Event{good}},
		"no events":        {Stream: stream("a")},
		"many events":      {Stream: stream("a"), Events: make([]eventstore.Event, eventstore.MaxAppendEvents+1)},
		"negative version": {Stream: stream("a"), Expected: -2, Events: []eventstore.Event{good}},
		"no type":          {Stream: stream("a"), Events: []eventstore.Event{{Data: jsontext.Value("1")}}},
		"no JSON":          {Stream: stream("a"), Events: []eventstore.Event{{Type: "x", Data: jsontext.Value("{")}}},
		"no data":          {Stream: stream("a"), Events: []eventstore.Event{{Type: "x"}}},
		"no UUID":          {Stream: stream("a"), Events: []eventstore.Event{{Type: "x", ID: "1", Data: jsontext.Value("1")}}},
		"negative schema":  {Stream: stream("a"), Events: []eventstore.Event{{Type: "x", Schema: -1, Data: jsontext.Value("1")}}},
		"long metadata":    {Stream: stream("a"), Events: []eventstore.Event{{Type: "x", Data: jsontext.Value("1"), Metadata: eventstore.Metadata{Actor: long}}}},
	} {
		_, err := s.AppendAll(t.Context(), a)
		require.ErrorIs(t, err, state.ErrInvalid, name)
	}
	_, err := s.AppendAll(t.Context())
	require.ErrorIs(t, err, state.ErrInvalid)
	part := eventstore.Append{Stream: stream("a"), Expected: eventstore.Any, Events: []eventstore.Event{good}}
	_, err = s.AppendAll(t.Context(), part, part)
	require.ErrorIs(t, err, state.ErrInvalid, "a stream named twice")
	_, err = s.Append(t.Context(), stream("a"), eventstore.Any, eventstore.Event{Type: "x", Data: jsontext.Value(`"` + strings.Repeat("x", eventstore.MaxDataBytes) + `"`)})
	require.ErrorIs(t, err, state.ErrTooLarge)
	for _, events := range []func(func(eventstore.Recorded, error) bool){
		s.ReadCategory(t.Context(), "", eventstore.ReadOptions{}),
		s.ReadStream(t.Context(), eventstore.StreamID{}, eventstore.ReadOptions{}),
		s.ReadAll(t.Context(), eventstore.ReadOptions{From: -1}),
		s.ReadAll(t.Context(), eventstore.ReadOptions{Limit: -1}),
	} {
		for _, err := range events {
			require.ErrorIs(t, err, state.ErrInvalid)
		}
	}
	require.Empty(t, CheckOrder(t, s))
}

// What a caller does with its bytes later changes no event, neither one that it appended nor one that it read.
func callersOwnTheirBytes(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	e := event("x")
	want := string(e.Data)
	mustAppend(t, s, stream("a"), eventstore.Any, e)
	e.Data[2] = '!'
	for range 2 {
		read := collect(t, s.ReadAll(t.Context(), eventstore.ReadOptions{}))
		require.Equal(t, want, string(read[0].Data))
		read[0].Data[2] = '!'
	}
}

// Streams whose names differ in case, blanks or normal form are different ones.
func namesAreBytes(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	names := []string{"a", "A", "a ", " a", "é", "e\u0301", "a/b", "a%", "a_", "\x00", "'", `\`}
	for _, name := range names {
		mustAppend(t, s, stream(name), eventstore.NoStream, event("x"))
	}
	for i, name := range names {
		found := collect(t, s.ReadStream(t.Context(), stream(name), eventstore.ReadOptions{}))
		require.Equal(t, []int64{int64(i + 1)}, positions(found), "stream %q", name)
		require.Equal(t, stream(name), found[0].Stream)
	}
}

// A context that has ended asks for nothing.
func endedContexts(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Append(ended, stream("a"), eventstore.Any, event("x"))
	require.ErrorIs(t, err, context.Canceled)
	for _, err := range s.ReadAll(ended, eventstore.ReadOptions{}) {
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Empty(t, CheckOrder(t, s))
}

// Who appends tells, before the call returns, and a repetition is no news.
func toldOfAppends(t *testing.T, open Open) {
	var told []int64
	s := open(t, eventstore.Config{OnAppend: func(_ context.Context, position int64) { told = append(told, position) }})
	e := withID(event("x"))
	mustAppend(t, s, stream("a"), 0, e, event("y"))
	mustAppend(t, s, stream("a"), eventstore.Any, event("z"))
	mustAppend(t, s, stream("a"), eventstore.Any, e)
	_, err := s.Append(t.Context(), stream("a"), 0, event("z"))
	require.ErrorIs(t, err, state.ErrConflict)
	require.Equal(t, []int64{2, 3}, told)
}
