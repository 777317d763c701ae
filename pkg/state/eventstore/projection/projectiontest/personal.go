package projectiontest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
)

// Personal members are in the clear for what is projected, whoever applies the events. Once they are erased, what is built anew has null.
func personalMembers(t *testing.T, w *world) {
	w.log = eventstore.New(w.Open(t).Engine(), eventstore.Config{KeyCache: -1}) // keys are asked for within each step
	var mu sync.Mutex
	seen := map[int64]eventstore.Recorded{}
	w.gate.set(func(b projection.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range b.Events {
			seen[e.Position] = e
		}
		return nil
	})
	requireSeen := func(from, to int64, data string, erased ...jsontext.Pointer) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		for position := from; position <= to; position++ {
			require.JSONEq(t, data, string(seen[position].Data), "position %d", position)
			require.Equal(t, erased, seen[position].Erased, "position %d", position)
			require.Zero(t, seen[position].Metadata, "position %d", position)
		}
	}
	const plain, gone = `{"name":"Ada","n":1}`, `{"name":null,"n":1}`
	joins := func(n int) (last int64) {
		t.Helper()
		for i := range n {
			e := eventstore.Event{Type: "joined", Data: jsontext.Value(plain), Personal: eventstore.Personal{Subject: "ada", Members: []jsontext.Pointer{"/name"}}}
			appended, err := w.log.Append(t.Context(), eventstore.StreamID{Category: "test", ID: fmt.Sprint(i % 7)}, eventstore.Any, e)
			require.NoError(t, err)
			last = appended.Position
		}
		return last
	}
	before := joins(10)
	s := w.set(t, w.log, w.Definition)
	v, err := s.Await(within(t), "chains", before)
	require.NoError(t, err)
	if w.Definition.Inline {
		require.EventuallyWithT(t, func(c *assert.CollectT) { require.True(c, status(c, s, 1).Inline) }, patience, 20*time.Millisecond)
	}
	last := joins(10)
	_, err = s.Await(within(t), "chains", last)
	require.NoError(t, err)
	requireSeen(1, last, plain)
	w.requireRight(t, v)

	found, err := w.log.Erase(t.Context(), "ada")
	require.NoError(t, err)
	require.True(t, found)
	built, err := s.Rebuild(t.Context(), "chains", false)
	require.NoError(t, err)
	reaches(t, s, 2, projection.Live, last)
	requireSeen(1, last, gone, "/name")
	w.requireRight(t, built)
}
