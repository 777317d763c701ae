package projectiontest

import (
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
)

func inlineCases() []testCase {
	return []testCase{
		{"there when the append returns", thereAtOnce},
		{"what fails is not appended", refusedTogether},
		{"an append of many bytes", manyBytes},
		{"what others append comes", fromOthers},
		{"a rebuild, with writers going on", inlineRebuilt},
		{"begun late, paused, resumed", inlineLate},
		{"personal members", personalMembers},
	}
}

func thereAtOnce(t *testing.T, w *world) {
	log := w.events(t)
	s := w.set(t, log, w.Definition)
	v, err := s.Live(t.Context(), "chains")
	require.NoError(t, err)
	for i := range 20 {
		w.appendTo(t, log, string(rune('0'+i%7)))
		require.EqualValues(t, i+1, w.Read(t, v).total())
	}
	require.True(t, status(t, s, 1).Inline)
	stop := w.writers(t, log) // several that share a transaction
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.Greater(c, w.Read(c, v).total(), int64(200)) }, patience, 20*time.Millisecond)
	stop()
	w.requireRight(t, v)
}

// An event that the projection refuses is not appended, nor is anything that it was to be appended with; those of others are.
func refusedTogether(t *testing.T, w *world) {
	log := w.events(t)
	s := w.set(t, log, w.Definition)
	w.gate.set(func(b projection.Batch) error {
		for _, e := range b.Events {
			if string(e.Data) == `"bad"` {
				return errPoison
			}
		}
		return nil
	})
	last := w.append(t, log, 5)
	stop := w.writers(t, log)
	bad := eventstore.Event{Type: "added", Data: jsontext.Value(`"bad"`), ID: "0d3c1a52-4a5f-4d0e-9d43-1d0a7f0c7d11"}
	good := eventstore.Event{Type: "added", Data: jsontext.Value(`"good"`)}
	for range 10 {
		_, err := log.Append(t.Context(), eventstore.StreamID{Category: "test", ID: "5"}, eventstore.Any, good, bad)
		require.ErrorIs(t, err, errPoison)
	}
	require.Eventually(t, func() bool {
		head, err := log.Head(t.Context())
		return err == nil && head > last
	}, patience, time.Millisecond)
	head := stop()
	for e, err := range log.ReadStream(t.Context(), eventstore.StreamID{Category: "test", ID: "5"}, eventstore.ReadOptions{}) {
		require.NoError(t, err)
		require.Contains(t, string(e.Data), "to", "nothing of what was refused is there")
	}
	v, err := s.Live(t.Context(), "chains")
	require.NoError(t, err)
	w.requireRight(t, v)
	_, err = log.Append(t.Context(), eventstore.StreamID{Category: "refused", ID: "1"}, eventstore.NoStream, bad)
	require.ErrorIs(t, err, errPoison)
	streams, err := log.Streams(t.Context(), "refused", "", 10)
	require.NoError(t, err)
	require.Empty(t, streams)
	w.gate.set(nil)
	appended, err := log.Append(t.Context(), eventstore.StreamID{Category: "test", ID: "6"}, eventstore.Any, bad)
	require.NoError(t, err, "its id is free")
	require.Equal(t, head+1, appended.Position)
	w.requireRight(t, v)
}

// What is appended at once is applied in the same step, and not held at once. What fails in the last of its batches is not appended.
func manyBytes(t *testing.T, w *world) {
	log := w.events(t)
	s := w.set(t, log, w.Definition)
	w.appendTo(t, log, "1")
	v, err := s.Live(t.Context(), "chains")
	require.NoError(t, err)
	events := make([]eventstore.Event, 12)
	for i := range events {
		events[i] = eventstore.Event{Type: "added", Data: jsontext.Value(`"` + strings.Repeat("x", 1_000_000) + `"`)}
	}
	most, applied := 0, 0
	var refuse error
	w.gate.set(func(b projection.Batch) error {
		size := 0
		for _, e := range b.Events {
			size += len(e.Data)
		}
		most, applied = max(most, size), applied+len(b.Events)
		if applied == len(events) {
			return refuse
		}
		return nil
	})
	stream := eventstore.StreamID{Category: "test", ID: "2"}
	if w.DB != nil { // in memory, what was applied is not undone
		refuse = errPoison
		_, err = log.Append(t.Context(), stream, eventstore.NoStream, events...)
		require.ErrorIs(t, err, errPoison)
		require.Equal(t, len(events), applied)
		w.requireRight(t, v)
		refuse, applied = nil, 0
	}
	appended, err := log.Append(t.Context(), stream, eventstore.NoStream, events...)
	require.NoError(t, err)
	require.EqualValues(t, len(events)+1, appended.Position)
	require.EqualValues(t, len(events)+1, w.Read(t, v).total(), "each is there when the append returns")
	require.Less(t, most, 6<<20, "bytes in one batch")
	w.requireRight(t, v)
}

// What a process appends that does not have the definition comes a moment later, or with the next append of one that has it.
func fromOthers(t *testing.T, w *world) {
	if w.DB == nil {
		t.Skip("another process has another memory")
	}
	log := w.events(t)
	s := w.set(t, log, w.Definition)
	other := w.Open(t)
	w.append(t, other, 10)
	v, err := s.Await(within(t), "chains", w.append(t, log, 1))
	require.NoError(t, err)
	w.requireRight(t, v)
	last := w.append(t, other, 10)
	_, err = s.Await(within(t), "chains", last)
	require.NoError(t, err)
	w.requireRight(t, v)
	second := w.set(t, other, w.Definition)
	stopFirst, stopSecond := w.writers(t, log), w.writers(t, other)
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.Greater(c, w.Read(c, v).total(), int64(200)) }, patience, 20*time.Millisecond)
	stopFirst()
	stopSecond()
	w.requireRight(t, v)
	require.True(t, status(t, second, 1).Inline)
}

func inlineRebuilt(t *testing.T, w *world) {
	log := w.events(t)
	s := w.set(t, log, w.Definition)
	w.many(t, log, 300)
	stop := w.writers(t, log)
	built, err := s.Rebuild(t.Context(), "chains", false)
	require.NoError(t, err)
	reaches(t, s, 2, projection.Live, 300)
	before := projection.Version{Projection: "chains", Number: 1}
	stop()
	w.requireRight(t, built)
	require.Equal(t, w.Read(t, before).String(), w.Read(t, built).String(), "byte by byte")
	w.appendTo(t, log, "2")
	w.requireRight(t, built)
	w.requireRight(t, before)
	require.NoError(t, s.Swap(t.Context(), "chains", 1))
	require.NoError(t, s.Drop(t.Context(), "chains", 2))
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.Zero(c, status(c, s, 2).Number) }, patience, 20*time.Millisecond)
	w.appendTo(t, log, "2")
	w.requireRight(t, before)
}

// On a log that is long already it is asynchronous until it has caught up, and so it is after a pause.
func inlineLate(t *testing.T, w *world) {
	log := w.events(t)
	last := w.many(t, log, 800)
	s := w.set(t, log, w.Definition)
	v, err := s.Await(within(t), "chains", last)
	require.NoError(t, err)
	require.EventuallyWithT(t, func(c *assert.CollectT) { require.True(c, status(c, s, 1).Inline) }, patience, 20*time.Millisecond)
	w.appendTo(t, log, "1")
	w.requireRight(t, v)
	require.NoError(t, s.Pause(t.Context(), "chains"))
	last = w.many(t, log, 800)
	require.EqualValues(t, 801, w.Read(t, v).total())
	require.NoError(t, s.Resume(t.Context(), "chains"))
	_, err = s.Await(within(t), "chains", last)
	require.NoError(t, err)
	w.appendTo(t, log, "1")
	w.requireRight(t, v)
}
