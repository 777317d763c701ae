package projectiontest

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
)

// ofAda appends n events that say something of a subject, with few calls.
func ofAda(t *testing.T, log *eventstore.Store, n int) (last int64) {
	t.Helper()
	for i := 0; n > 0; i++ {
		events := make([]eventstore.Event, min(n, 50))
		for j := range events {
			events[j] = eventstore.Event{Type: "joined", Data: jsontext.Value(`{"name":"Ada"}`), Personal: eventstore.Personal{Subject: "ada", Members: []jsontext.Pointer{"/name"}}}
		}
		n -= len(events)
		appended, err := log.Append(t.Context(), eventstore.StreamID{Category: "test", ID: strconv.Itoa(i % 7)}, eventstore.Any, events...)
		require.NoError(t, err)
		last = appended.Position
	}
	return last
}

// A process that applies events knows the key of a subject for a while after another process has erased that: what it builds then has nothing of the subject
// all the same.
func erasedElsewhere(t *testing.T, w *world) {
	last := ofAda(t, w.events(t), 100)
	follower := w.Open(t)
	s := w.set(t, follower, w.Definition)
	_, err := s.Await(within(t), "chains", last)
	require.NoError(t, err)
	for e, err := range follower.ReadAll(t.Context(), eventstore.ReadOptions{}) { // so that it knows the key
		require.NoError(t, err)
		require.Empty(t, e.Erased)
	}
	found, err := w.log.Erase(t.Context(), "ada")
	require.NoError(t, err)
	require.True(t, found)
	built, err := s.Rebuild(t.Context(), "chains", false)
	require.NoError(t, err)
	reaches(t, s, built.Number, projection.Live, last)
	w.requireRight(t, built) // as who has no key reads the log
}

// A subject is erased while the projection is followed and rebuilt: both versions have something of it, and List says so. A rebuild that is commanded then
// is not the one that was begun before, and has nothing.
func erasedWhileRebuilding(t *testing.T, w *world) {
	last := ofAda(t, w.events(t), 300)
	s := w.set(t, w.log, w.Definition)
	_, err := s.Await(within(t), "chains", last)
	require.NoError(t, err)
	require.Zero(t, status(t, s, 1).Erased)
	stuck := make(chan struct{})
	var once sync.Once
	w.gate.set(func(b projection.Batch) error { // the live one is at the end
		if b.Events[0].Position > 200 {
			once.Do(func() { close(stuck) })
			return state.ErrUnavailable
		}
		return nil
	})
	half, err := s.Rebuild(t.Context(), "chains", false)
	require.NoError(t, err)
	<-stuck
	found, err := w.log.Erase(t.Context(), "ada")
	require.NoError(t, err)
	require.True(t, found)
	require.EqualValues(t, 1, status(t, s, 1).Erased)
	require.EqualValues(t, 1, status(t, s, half.Number).Erased)
	again, err := s.Rebuild(t.Context(), "chains", false)
	require.NoError(t, err)
	require.NotEqual(t, half, again, "it has what it read before the erasure")
	same, err := s.Rebuild(t.Context(), "chains", false)
	require.NoError(t, err)
	require.Equal(t, again, same, "nobody was erased since")
	w.gate.set(nil)
	r := reaches(t, s, again.Number, projection.Live, last)
	require.Zero(t, r.Erased)
	w.requireRight(t, again)
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.Zero(c, status(c, s, half.Number).Number) }, patience, 20*time.Millisecond, "the half one is dropped")
}
