package eventstore_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
)

type step struct{ N int }

func steps(t *testing.T, s *eventstore.Store) *eventstore.Aggregate[int] {
	t.Helper()
	types, err := eventstore.NewTypes(eventstore.TypeOf[step]("step", 1))
	require.NoError(t, err)
	a, err := eventstore.NewAggregate(s, eventstore.AggregateConfig[int]{Category: "steps", Types: types,
		Snapshots: eventstore.SnapshotPolicy{Events: 3},
		Apply:     func(sum *int, event any) error { *sum += event.(step).N; return nil }})
	require.NoError(t, err)
	return a
}

func one(eventstore.Loaded[int]) ([]any, error) { return []any{step{1}}, nil }

// deaf appends and does not say so.
type deaf struct {
	eventstore.Engine
	times int // how often
	away  int // and how often after that it cannot be reached
}

func (d *deaf) Append(ctx context.Context, appends []eventstore.Append) ([]eventstore.Appended, error) {
	if d.away > 0 && d.times == 0 {
		d.away--
		return nil, fmt.Errorf("%w: it is away", state.ErrUnavailable)
	}
	appended, err := d.Engine.Append(ctx, appends)
	if err == nil && d.times > 0 {
		d.times--
		return nil, fmt.Errorf("%w: nobody heard", state.ErrOutcomeUnknown)
	}
	return appended, err
}

// A decision whose commit is not answered is made once.
func TestDecideUnknownOutcome(t *testing.T) {
	engine := &deaf{Engine: memoryevents.New(eventstore.Config{}).Engine(), times: 2}
	a := steps(t, eventstore.New(engine, eventstore.Config{}))
	after, err := a.Decide(t.Context(), "a", one)
	require.NoError(t, err)
	require.Equal(t, eventstore.Loaded[int]{State: 1, Version: 1}, after)

	engine.times, engine.away = 1, 100
	_, err = a.Decide(t.Context(), "a", one)
	require.ErrorIs(t, err, state.ErrOutcomeUnknown, "that it is away now says nothing of the first try, which was made")
	require.NotErrorIs(t, err, state.ErrUnavailable)
	loaded, err := a.Load(t.Context(), "a")
	require.NoError(t, err)
	require.EqualValues(t, 2, loaded.Version)
	_, err = a.Decide(t.Context(), "a", one)
	require.ErrorIs(t, err, state.ErrUnavailable, "nothing was made")

	engine.times, engine.away = 100, 0
	_, err = a.Decide(t.Context(), "a", one)
	require.ErrorIs(t, err, state.ErrOutcomeUnknown)
}

// A snapshot of another history, as after a restore of the database, is not used, nor one that cannot be read.
func TestSnapshotOfAnotherHistory(t *testing.T) {
	s := memoryevents.New(eventstore.Config{})
	a := steps(t, s)
	for range 4 {
		_, err := a.Decide(t.Context(), "a", one)
		require.NoError(t, err)
	}
	engine := s.Engine()
	snapshot, found, err := engine.LoadSnapshot(t.Context(), eventstore.StreamID{Category: "steps", ID: "a"}, 1)
	require.NoError(t, err)
	require.True(t, found)
	require.EqualValues(t, 3, snapshot.Version)
	for id, spoil := range map[string]func(s *eventstore.Snapshot){
		"another event":  func(s *eventstore.Snapshot) { s.Version = 2 },
		"a longer one":   func(s *eventstore.Snapshot) { s.Version = 40 },
		"no JSON of it":  func(s *eventstore.Snapshot) { s.Data = []byte(`"x"`) },
		"no JSON at all": func(s *eventstore.Snapshot) { s.Data = nil },
	} {
		_, err := a.Decide(t.Context(), id, func(eventstore.Loaded[int]) ([]any, error) { return []any{step{1}, step{1}}, nil })
		require.NoError(t, err)
		other := snapshot
		other.Stream.ID, other.Data = id, []byte("100")
		spoil(&other)
		require.NoError(t, engine.SaveSnapshot(t.Context(), other))
		loaded, err := a.Load(t.Context(), id)
		require.NoError(t, err, id)
		require.Equal(t, eventstore.Loaded[int]{State: 2, Version: 2}, loaded, id)
	}
}

type moved struct{ Metres int }

// Old forms are brought to the newest, one step after the other.
func TestUpcast(t *testing.T) {
	var ran []int
	up := func(from int) eventstore.Upcaster {
		return eventstore.Upcast(from, func(data jsontext.Value) (jsontext.Value, error) {
			ran = append(ran, from)
			if string(data) == "1" {
				return nil, fmt.Errorf("it is odd")
			}
			return jsontext.Value(fmt.Sprintf(`{"Metres":%d}`, 100*from)), nil
		})
	}
	types, err := eventstore.NewTypes(eventstore.TypeOf[moved]("moved", 3, up(1), up(2)))
	require.NoError(t, err)
	read := func(schema int, data string) (any, error) {
		return types.Decode(eventstore.Recorded{Event: eventstore.Event{Type: "moved", Schema: schema, Data: jsontext.Value(data)}})
	}
	value, err := read(1, `{"m":1}`)
	require.NoError(t, err)
	require.Equal(t, moved{200}, value)
	require.Equal(t, []int{1, 2}, ran)
	value, err = read(3, `{"Metres":7,"more":true}`)
	require.NoError(t, err)
	require.Equal(t, moved{7}, value)

	_, err = read(4, `{}`)
	require.ErrorIs(t, err, eventstore.ErrUnknownType)
	_, err = read(3, `"x"`)
	require.ErrorIs(t, err, state.ErrCorrupt)
	_, err = read(1, `1`)
	require.ErrorIs(t, err, state.ErrCorrupt)
	_, err = types.Decode(eventstore.Recorded{Event: eventstore.Event{Type: "other"}})
	require.ErrorIs(t, err, eventstore.ErrUnknownType)

	for name, wrong := range map[string][]*eventstore.Type{
		"none for 2":   {eventstore.TypeOf[moved]("moved", 3, up(1))},
		"one too many": {eventstore.TypeOf[moved]("moved", 1, up(1))},
		"twice":        {eventstore.TypeOf[moved]("moved", 2, up(1), up(1))},
		"a name twice": {eventstore.TypeOf[moved]("moved", 1), eventstore.TypeOf[step]("moved", 1)},
		"a type twice": {eventstore.TypeOf[moved]("moved", 1), eventstore.TypeOf[moved]("gone", 1)},
		"no name":      {eventstore.TypeOf[moved]("", 1)},
	} {
		_, err := eventstore.NewTypes(wrong...)
		require.ErrorIs(t, err, state.ErrInvalid, name)
	}
}
