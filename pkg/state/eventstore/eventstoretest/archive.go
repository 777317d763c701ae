package eventstoretest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// Nothing is appended to a closed stream, whatever is expected, also by one who has appended to it before.
func closedStreams(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	first := withID(event("x"))
	mustAppend(t, s, stream("a"), 0, first)
	mustAppend(t, s, stream("a"), 1, event("y"))
	mustAppend(t, s, stream("b"), 0, event("x"))
	_, err := s.CloseStream(t.Context(), stream("a"), 1)
	require.ErrorIs(t, err, state.ErrConflict)
	closing, err := s.CloseStream(t.Context(), stream("a"), 2)
	require.NoError(t, err)
	require.Equal(t, eventstore.Appended{Stream: stream("a"), Version: 3, Position: 4}, closing)

	refused := func() {
		t.Helper()
		for _, expected := range []eventstore.Expected{eventstore.Any, eventstore.NoStream, 2, 3, 4} {
			for _, events := range [][]eventstore.Event{{event("z")}, {event("z"), event("z")}} {
				_, err := s.Append(t.Context(), stream("a"), expected, events...)
				require.Error(t, err)
				if expected == eventstore.Any || expected == 3 {
					require.ErrorIs(t, err, eventstore.ErrStreamClosed, "%d", expected)
				}
			}
		}
		_, err := s.AppendAll(t.Context(), eventstore.Append{Stream: stream("b"), Expected: eventstore.Any, Events: []eventstore.Event{event("z")}},
			eventstore.Append{Stream: stream("a"), Expected: eventstore.Any, Events: []eventstore.Event{event("z")}})
		require.ErrorIs(t, err, eventstore.ErrStreamClosed)
		_, err = s.CloseStream(t.Context(), stream("a"), eventstore.Any)
		require.ErrorIs(t, err, eventstore.ErrStreamClosed)
	}
	refused()
	mustAppend(t, s, stream("b"), 1, event("y"), event("y"))
	refused()
	require.True(t, mustAppend(t, s, stream("a"), 0, first).Repeated)
	require.Len(t, CheckOrder(t, s), 6)

	_, err = s.CloseStream(t.Context(), stream("none"), eventstore.Any)
	require.ErrorIs(t, err, state.ErrNotFound)
	_, err = s.Append(t.Context(), stream("b"), eventstore.Any, eventstore.Event{Type: eventstore.ClosedType, Data: jsontext.Value("{}")})
	require.ErrorIs(t, err, state.ErrInvalid)

	// An aggregate can be loaded, and changed no more.
	a := counters(t, s, eventstore.SnapshotPolicy{Events: 1}, 0, nil)
	_, err = a.Decide(t.Context(), "c", add(1))
	require.NoError(t, err)
	_, err = s.CloseStream(t.Context(), eventstore.StreamID{Category: "counter", ID: "c"}, 1)
	require.NoError(t, err)
	loaded, err := a.Load(t.Context(), "c")
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[counter]{State: counter{Sum: 1}, Version: 2}, loaded)
	_, err = a.Decide(t.Context(), "c", add(1))
	require.ErrorIs(t, err, eventstore.ErrStreamClosed)
}

// The event that closes a stream is its last, whoever appends at the same time.
func closedWhileAppending(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for {
				if _, err := s.Append(t.Context(), stream("a"), eventstore.Any, event("x")); err != nil {
					if !errors.Is(err, eventstore.ErrStreamClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	require.Eventually(t, func() bool {
		head, err := s.Head(t.Context())
		return err == nil && head >= 20
	}, patience, time.Millisecond)
	closing, err := s.CloseStream(t.Context(), stream("a"), eventstore.Any)
	require.NoError(t, err)
	writers.Wait()
	all := CheckOrder(t, s)
	require.EqualValues(t, len(all), closing.Version)
	require.Equal(t, eventstore.ClosedType, all[len(all)-1].Type)
}

// What is archived is read as before, in every way.
func archivedStreams(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	first := withID(eventstore.Event{Type: "x", Schema: 1, Data: jsontext.Value(` {"n":1.0} `), Metadata: eventstore.Metadata{Actor: "é"}})
	mustAppend(t, s, stream("a"), 0, first, personal("ada", ofAda))
	const events = 450 // more than a step
	for i := range events / 10 {
		var ten []eventstore.Event
		for j := range 10 {
			ten = append(ten, eventstore.Event{Type: "x", Data: jsontext.Value(fmt.Sprintf(`{"n":%d}`, 10*i+j))})
		}
		mustAppend(t, s, stream("a"), eventstore.Any, ten...)
		mustAppend(t, s, stream("b"), eventstore.Any, event("x"))
	}
	large := jsontext.Value(`"` + strings.Repeat("x", eventstore.MaxDataBytes-2) + `"`)
	for range 8 { // more than a page
		mustAppend(t, s, stream("a"), eventstore.Any, eventstore.Event{Type: "x", Data: large})
	}
	_, err := s.Archive(t.Context(), stream("a"))
	require.ErrorIs(t, err, state.ErrConflict, "it is not closed")
	_, err = s.CloseStream(t.Context(), stream("a"), eventstore.Any)
	require.NoError(t, err)

	all := CheckOrder(t, s)
	read := func() [][]eventstore.Recorded {
		return [][]eventstore.Recorded{
			collect(t, s.ReadStream(t.Context(), stream("a"), eventstore.ReadOptions{})),
			collect(t, s.ReadStream(t.Context(), stream("a"), eventstore.ReadOptions{Backward: true, Limit: 100})),
			collect(t, s.ReadStream(t.Context(), stream("a"), eventstore.ReadOptions{From: 100, Limit: 3})),
			collect(t, s.ReadCategory(t.Context(), "test", eventstore.ReadOptions{})),
			collect(t, s.ReadAll(t.Context(), eventstore.ReadOptions{Backward: true})),
		}
	}
	before := read()
	moved, err := s.Archive(t.Context(), stream("a"))
	require.NoError(t, err)
	require.EqualValues(t, 2+events+8, moved)
	require.Equal(t, before, read())
	require.Equal(t, all, CheckOrder(t, s))
	require.Equal(t, first, CheckOrder(t, s)[0].Event)
	moved, err = s.Archive(t.Context(), stream("a"))
	require.NoError(t, err)
	require.Zero(t, moved)
	_, err = s.Archive(t.Context(), stream("none"))
	require.ErrorIs(t, err, state.ErrNotFound)

	// Ids are known, personal members can be erased, and the log goes on.
	require.True(t, mustAppend(t, s, stream("a"), 0, first).Repeated)
	_, err = s.Append(t.Context(), stream("c"), 0, first)
	require.ErrorIs(t, err, eventstore.ErrIDTaken)
	_, err = s.Erase(t.Context(), "ada")
	require.NoError(t, err)
	require.Len(t, CheckOrder(t, s)[1].Erased, 2)
	require.EqualValues(t, len(all)+1, mustAppend(t, s, stream("c"), 0, event("x")).Position)
	CheckOrder(t, s)
}

// A snapshot is read with what is behind it also when that is in the archive, the event that it is of too.
func archivedBehindSnapshot(t *testing.T, open Open) {
	s := open(t, eventstore.Config{})
	id := eventstore.StreamID{Category: "member", ID: "m"}
	a := members(t, s, eventstore.SnapshotPolicy{Events: 10_000})
	join(t, a, id.ID, "ada", "Ada")
	require.NoError(t, s.SaveSnapshot(t.Context(), id, 1, 1, jsontext.Value(`{"Name":"Ada","City":"kept","Fees":1000}`), "ada"))
	const steps, each = 5, 50 // more than a step of archiving, and than the engine has in a page
	padding := strings.Repeat("x", 24<<10)
	for range steps {
		paid := make([]eventstore.Event, each)
		for i := range paid {
			paid[i] = eventstore.Event{Type: "paid", Data: jsontext.Value(`{"Fee":1,"padding":"` + padding + `"}`)}
		}
		mustAppend(t, s, id, eventstore.Any, paid...)
	}
	mustAppend(t, s, id, eventstore.Any, eventstore.Event{Type: "joined", Data: jsontext.Value(`{"name":"Ada L.","address":{"street":"Long Lane","city":"Ely"}}`),
		Personal: eventstore.Personal{Subject: "ada", Members: []jsontext.Pointer{"/name", "/address/street"}}})
	_, err := s.CloseStream(t.Context(), id, eventstore.Any)
	require.NoError(t, err)
	moved, err := s.Archive(t.Context(), id)
	require.NoError(t, err)
	require.EqualValues(t, 1+steps*each+1, moved)

	loaded, err := a.Load(t.Context(), id.ID)
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[member]{State: member{Name: "Ada L.", Street: "Long Lane", City: "Ely", Fees: 1000 + steps*each}, Version: moved + 1}, loaded)
	loaded, err = a.LoadVersion(t.Context(), id.ID, 100)
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[member]{State: member{Name: "Ada", City: "kept", Fees: 1099}, Version: 100}, loaded)
	_, err = s.Erase(t.Context(), "ada")
	require.NoError(t, err)
	loaded, err = a.Load(t.Context(), id.ID)
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[member]{State: member{City: "Ely", Fees: 10 + steps*each}, Version: moved + 1}, loaded)
}
