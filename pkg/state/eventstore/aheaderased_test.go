package eventstore_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
)

// counted tells how many events each page had, when it was read.
type counted struct {
	eventstore.Engine
	pages chan int
}

func (c counted) Read(ctx context.Context, r eventstore.Range) ([]eventstore.Recorded, bool, error) {
	events, more, err := c.Engine.Read(ctx, r)
	c.pages <- len(events)
	return events, more, err
}

// A page that was fetched ahead shows nothing of who was erased before it is read on.
func TestWhatIsReadAheadIsDecryptedWhenItIsHandedOut(t *testing.T) {
	log := memoryevents.New(eventstore.Config{})
	const all = 10_000
	for n := range all / 100 {
		events := make([]eventstore.Event, 100)
		for i := range events {
			events[i] = eventstore.Event{Type: "x", Data: jsontext.Value(fmt.Sprintf(`{"name":"Ada %d"}`, n)),
				Personal: eventstore.Personal{Subject: "ada", Members: []jsontext.Pointer{"/name"}}}
		}
		_, err := log.Append(t.Context(), eventstore.StreamID{Category: "a", ID: fmt.Sprint(n)}, eventstore.NoStream, events...)
		require.NoError(t, err)
	}
	engine := counted{log.Engine(), make(chan int, all)}
	s := eventstore.New(engine, eventstore.Config{})
	seen, handed, erased := 0, 0, false
	for e, err := range s.ReadCategory(t.Context(), "a", eventstore.ReadOptions{}) {
		require.NoError(t, err)
		if seen == handed && !erased { // the first event of a page
			handed += <-engine.pages
			if seen > 0 && len(e.Erased) == 0 && handed > all/10 {
				next := <-engine.pages // the page after this one has been fetched
				require.Positive(t, next)
				_, err := s.Erase(t.Context(), "ada")
				require.NoError(t, err)
				erased = true
			}
		}
		seen++
		require.Equal(t, seen > handed, len(e.Erased) == 1, "event %d, erased when %d were handed out", seen, handed)
	}
	require.Equal(t, all, seen)
	require.True(t, erased)
}
