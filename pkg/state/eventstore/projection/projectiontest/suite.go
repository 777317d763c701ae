// Package projectiontest is what package projection must keep on every engine of the event store, as tests.
package projectiontest

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

// A Place is an empty log and what a projection may be kept in. It ends with the test.
type Place struct {
	// Open returns the log as another process has it.
	Open func(t *testing.T) *eventstore.Store
	// DB is the log's database. Nil: the log is in memory.
	DB *sql.DB
}

// Run checks the package on an engine.
func Run(t *testing.T, place func(t *testing.T) Place) {
	kept := []struct {
		name string
		in   func(t *testing.T, p Place) Model
	}{{"tables", Tables}, {"keys", keys}}
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			for _, k := range kept {
				t.Run(k.name, func(t *testing.T) {
					p := place(t)
					if p.DB == nil && k.name == "tables" {
						t.Skip("this engine has no tables")
					}
					c.run(t, &world{Place: p, Model: k.in(t, p)})
				})
			}
		})
	}
	for _, c := range inlineCases() {
		t.Run("inline: "+c.name, func(t *testing.T) {
			p := place(t)
			m := mapped(t, p)
			if p.DB != nil {
				m = Tables(t, p)
			}
			m.Definition.Inline = true
			c.run(t, &world{Place: p, Model: m})
		})
	}
}

type testCase struct {
	name string
	run  func(t *testing.T, w *world)
}

func cases() []testCase {
	return []testCase{
		{"followed, and by the next process too", followed},
		{"applied once, although positions are lost", appliedOnce},
		{"a rebuild equals the live one, with writers going on", rebuilt},
		{"what readers see does not go back", neverBack},
		{"a rebuild goes on after a crash", resumed},
		{"two processes rebuild at once", twoAtOnce},
		{"a version that is dropped in work leaves nothing", droppedInWork},
		{"held back, then swapped by command", heldBack},
		{"paused and resumed", pausedAndResumed},
		{"a poison event parks its stream", poison},
		{"revisions", revisions},
		{"personal members", personalMembers},
		{"what is built after an erasure has nothing of it, whoever builds", erasedElsewhere},
		{"a rebuild that an erasure comes into begins anew by command", erasedWhileRebuilding},
		{"bad commands", badCommands},
		{"bad definitions", badDefinitions},
	}
}

// A world is a log with a projection.
type world struct {
	Place
	Model
	log *eventstore.Store
}

func (w *world) events(t *testing.T) *eventstore.Store {
	t.Helper()
	if w.log == nil {
		w.log = w.Open(t)
	}
	return w.log
}

// patience is how long is waited for what has to come.
const patience = 30 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// set follows the projection of the world, on a log, until the test ends.
func (w *world) set(t *testing.T, log *eventstore.Store, definitions ...projection.Definition) *projection.Set {
	t.Helper()
	s, err := projection.Open(within(t), log, projection.Config{Definitions: definitions, Poll: 25 * time.Millisecond, Lease: time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close(context.WithoutCancel(t.Context()))) })
	return s
}

// append appends n events to streams in turn.
func (w *world) append(t testing.TB, log *eventstore.Store, n int) (last int64) {
	t.Helper()
	for range n {
		last = w.appendTo(t, log, strconv.Itoa(int(last)%7))
	}
	return last
}

func (w *world) appendTo(t testing.TB, log *eventstore.Store, id string) int64 {
	t.Helper()
	e := eventstore.Event{Type: "added", Data: jsontext.Value(fmt.Sprintf(`{"to":%q}`, id))}
	appended, err := log.Append(context.WithoutCancel(t.Context()), eventstore.StreamID{Category: "test", ID: id}, eventstore.Any, e)
	require.NoError(t, err)
	return appended.Position
}

// many appends n events with few calls.
func (w *world) many(t testing.TB, log *eventstore.Store, n int) (last int64) {
	t.Helper()
	for i := 0; n > 0; i++ {
		events := make([]eventstore.Event, min(n, 50))
		for j := range events {
			events[j] = eventstore.Event{Type: "added", Data: jsontext.Value(strconv.Itoa(i*50 + j))}
		}
		n -= len(events)
		appended, err := log.Append(context.WithoutCancel(t.Context()), eventstore.StreamID{Category: "test", ID: strconv.Itoa(i % 7)}, eventstore.Any, events...)
		require.NoError(t, err)
		last = appended.Position
	}
	return last
}

// status is that of one version.
func status(t require.TestingT, s *projection.Set, number int) projection.Status {
	all, err := s.List(context.Background(), "chains")
	require.NoError(t, err)
	for _, r := range all {
		if r.Number == number {
			return r
		}
	}
	return projection.Status{}
}

// reaches waits until a version is in a state, and at a position.
func reaches(t testing.TB, s *projection.Set, number int, state projection.State, position int64) projection.Status {
	t.Helper()
	var r projection.Status
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		r = status(c, s, number)
		require.Equal(c, state, r.State)
		require.GreaterOrEqual(c, r.Position, position)
	}, patience, 20*time.Millisecond, "version %d: %s at %d is expected", number, state, position)
	return r
}

func (w *world) requireRight(t testing.TB, v projection.Version) {
	t.Helper()
	w.RequireRight(t, w.log, v)
}

// memoryRows is a store for a projection by key.
func memoryRows(t *testing.T) *state.Store[projection.Row[Chain]] {
	t.Helper()
	factory, err := state.NewFactory([]state.StoreConfig{{Name: "rows", Backend: "memory"}}, []state.Driver{memorystate.New()}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, factory.Close()) })
	rows, err := state.Open[projection.Row[Chain]](t.Context(), factory, "rows")
	require.NoError(t, err)
	return rows
}
