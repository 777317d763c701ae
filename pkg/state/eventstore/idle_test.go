package eventstore_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
)

// A watched engine tells the ranges that are read.
type watched struct {
	eventstore.Engine
	reads chan eventstore.Range
	on    atomic.Bool
}

func (w *watched) Read(ctx context.Context, r eventstore.Range) ([]eventstore.Recorded, bool, error) {
	if w.on.Load() {
		select {
		case w.reads <- r:
		default: // nobody asks any more
		}
	}
	return w.Engine.Read(ctx, r)
}

// A subscription that has come to the end of the log does not believe that most of what follows is of its category, as it was before: to MySQL that
// would be two statements each time it looks.
func TestIdleSubscriptionReadsOnce(t *testing.T) {
	engine := &watched{Engine: memoryevents.New(eventstore.Config{}).Engine(), reads: make(chan eventstore.Range, 1)}
	log := eventstore.New(engine, eventstore.Config{})
	const stored = 2000 // more than a page
	for i := range stored / eventstore.MaxAppendEvents {
		events := make([]eventstore.Event, eventstore.MaxAppendEvents)
		for j := range events {
			events[j] = eventstore.Event{Type: "x", Data: jsontext.Value("1")}
		}
		_, err := log.Append(t.Context(), eventstore.StreamID{Category: "c", ID: strconv.Itoa(i)}, eventstore.NoStream, events...)
		require.NoError(t, err)
	}
	handled := make(chan struct{})
	sub, err := log.Subscribe(eventstore.SubscriptionConfig{Name: "s", Category: "c", Poll: 5 * time.Millisecond,
		Handle: func(_ context.Context, e eventstore.Recorded) error {
			if e.Position == stored {
				close(handled)
			}
			return nil
		}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sub.Close(context.WithoutCancel(t.Context()))) })
	<-handled
	engine.on.Store(true)
	<-engine.reads // it may have begun before the end was reached
	for range 5 {
		r := <-engine.reads
		require.Equal(t, int64(stored+1), r.From)
		require.False(t, r.Dense)
	}
}
