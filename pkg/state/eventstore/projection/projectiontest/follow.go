package projectiontest

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
)

// What was appended before is in it, what is appended then comes, and the next process goes on where the first one was.
func followed(t *testing.T, w *world) {
	log := w.events(t)
	w.many(t, log, 300)
	first := w.set(t, log, w.Definition)
	v, err := first.Await(within(t), "chains", w.append(t, log, 20))
	require.NoError(t, err)
	require.Equal(t, projection.Version{Projection: "chains", Number: 1}, v)
	w.requireRight(t, v)
	r := status(t, first, 1)
	require.True(t, r.Live)
	require.True(t, r.Follower)
	require.Equal(t, projection.Live, r.State)
	require.EqualValues(t, 320, r.Total)
	require.Zero(t, r.Lag)
	require.Zero(t, r.Age)
	require.NoError(t, first.Close(t.Context()))
	last := w.append(t, log, 20)
	r = status(t, first, 1)
	require.EqualValues(t, 20, r.Lag)
	require.Positive(t, r.Age)
	require.False(t, r.Follower)
	second := w.set(t, w.Open(t), w.Definition)
	v, err = second.Await(within(t), "chains", last)
	require.NoError(t, err)
	w.requireRight(t, v)
}

// lossy is an engine that cannot enter each second position: what was applied up to it comes again.
type lossy struct {
	eventstore.Engine
	calls atomic.Int64
}

func (l *lossy) Advance(ctx context.Context, lease eventstore.Lease, to eventstore.Advance, within func(tx *sql.Tx) error) error {
	if l.calls.Add(1)%2 == 1 {
		return state.ErrUnavailable
	}
	return l.Engine.Advance(ctx, lease, to, within)
}

func appliedOnce(t *testing.T, w *world) {
	log := w.events(t)
	last := w.many(t, log, 200)
	s := w.set(t, eventstore.New(&lossy{Engine: log.Engine()}, eventstore.Config{}), w.Definition)
	v, err := s.Await(within(t), "chains", last)
	require.NoError(t, err)
	w.requireRight(t, v)
}

// While it is paused nothing is applied, and readers have what there is.
func pausedAndResumed(t *testing.T, w *world) {
	log := w.events(t)
	s := w.set(t, log, w.Definition)
	last := w.append(t, log, 10)
	v, err := s.Await(within(t), "chains", last)
	require.NoError(t, err)
	require.NoError(t, s.Pause(t.Context(), "chains"))
	require.Equal(t, projection.Paused, status(t, s, 1).State)
	late := w.append(t, log, 10)
	require.Never(t, func() bool { return w.Read(t, v).total() > 10 }, 100*time.Millisecond, 10*time.Millisecond)
	require.NoError(t, s.Resume(t.Context(), "chains"))
	_, err = s.Await(within(t), "chains", late)
	require.NoError(t, err)
	w.requireRight(t, v)
}

// A stream whose event fails is set aside, in that version alone, and goes on when it is released. It is not swapped to meanwhile.
func poison(t *testing.T, w *world) {
	log := w.events(t)
	w.append(t, log, 30)
	bad := w.appendTo(t, log, "3")
	after := w.append(t, log, 30)
	var healed atomic.Bool
	w.gate.set(func(b projection.Batch) error {
		for _, e := range b.Events {
			if e.Position == bad && !healed.Load() {
				return errPoison
			}
		}
		return nil
	})
	s := w.set(t, log, w.Definition)
	v, err := s.Await(within(t), "chains", after)
	require.NoError(t, err)
	require.Equal(t, 1, status(t, s, 1).Parked)
	require.Less(t, w.Read(t, v).total(), after)
	parked, err := log.Parked(t.Context(), v.Subscription())
	require.NoError(t, err)
	require.Contains(t, parked[0].Failure, errPoison.Error())

	healed.Store(true)
	w.append(t, log, 30)
	require.NoError(t, s.Unpark(t.Context(), v, parked[0].Stream, false))
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.Zero(c, status(c, s, 1).Parked) }, patience, 20*time.Millisecond)
	reaches(t, s, 1, projection.Live, after+30)
	w.requireRight(t, v)

	healed.Store(false)
	built, err := s.Rebuild(t.Context(), "chains", false)
	require.NoError(t, err)
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.Equal(c, 1, status(c, s, 2).Parked) }, patience, 20*time.Millisecond)
	r := reaches(t, s, 2, projection.Building, after+30)
	require.False(t, r.Live, "it leaves events out")
	healed.Store(true)
	require.NoError(t, s.Unpark(t.Context(), built, parked[0].Stream, false))
	reaches(t, s, 2, projection.Live, after+30)
	w.requireRight(t, built)
}

var errPoison = errors.New("this one cannot be applied")

func badCommands(t *testing.T, w *world) {
	log := w.events(t)
	ctx := t.Context()
	s := w.set(t, log, w.Definition)
	stranger := w.set(t, log)
	for name, err := range map[string]error{
		"pause":   stranger.Pause(ctx, "other"),
		"resume":  stranger.Resume(ctx, "other"),
		"swap":    stranger.Swap(ctx, "other", 1),
		"drop":    stranger.Drop(ctx, "other", 1),
		"version": stranger.Drop(ctx, "chains", 7),
		"swap to": stranger.Swap(ctx, "chains", 7),
		"unpark":  stranger.Unpark(ctx, projection.Version{Projection: "chains", Number: 7}, eventstore.StreamID{Category: "a", ID: "b"}, false),
	} {
		require.ErrorIs(t, err, state.ErrNotFound, name)
	}
	_, err := stranger.Rebuild(ctx, "other", false)
	require.ErrorIs(t, err, state.ErrNotFound)
	_, err = stranger.Live(ctx, "other")
	require.ErrorIs(t, err, state.ErrNotFound)
	_, err = stranger.List(ctx, "other")
	require.ErrorIs(t, err, state.ErrNotFound)
	require.ErrorIs(t, s.Drop(ctx, "chains", 1), state.ErrConflict, "the live one")
	require.NoError(t, s.Swap(ctx, "chains", 1), "it is live already")
	require.NoError(t, stranger.Pause(ctx, "chains"), "a stranger may command")
	require.Equal(t, projection.Paused, status(t, s, 1).State)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.Await(cancelled, "chains", 1)
	require.ErrorIs(t, err, context.Canceled)
}

func badDefinitions(t *testing.T, w *world) {
	log := w.events(t)
	for name, spoil := range map[string]func(d *projection.Definition){
		"no name":          func(d *projection.Definition) { d.Name = "" },
		"odd name":         func(d *projection.Definition) { d.Name = "a-b" },
		"nothing to apply": func(d *projection.Definition) { d.Apply, d.Into = nil, nil },
		"negative":         func(d *projection.Definition) { d.Batch = -1 },
		"inline elsewhere": func(d *projection.Definition) {
			d.Inline, d.Apply, d.Into = true, nil, keys(t, w.Place).Definition.Into
		},
	} {
		d := w.Definition
		spoil(&d)
		_, err := projection.Open(t.Context(), log, projection.Config{Definitions: []projection.Definition{d}})
		require.ErrorIs(t, err, state.ErrInvalid, name)
	}
	_, err := projection.Open(t.Context(), log, projection.Config{Definitions: []projection.Definition{w.Definition, w.Definition}})
	require.ErrorIs(t, err, state.ErrInvalid, "twice")
}
