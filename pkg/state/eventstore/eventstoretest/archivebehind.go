package eventstoretest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// A subscription that is behind a stream that is archived meanwhile is given all its events as they were appended, however it handles: those of the page that it has
// read by then, and those that it reads out of the archive.
func archivedBeforeSubscription(t *testing.T, open Open) {
	const streams, events = 2, 1080 // of each: more than a step of archiving, and than the page that is handled and the one behind it
	type seen struct {
		version int64
		data    string
	}
	for name, scope := range map[string]eventstore.SubscriptionConfig{"category": {Category: "test"}, "stream": {Stream: stream("0")}} {
		for _, begun := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, begun %t", name, begun), func(t *testing.T) {
				s := open(t, eventstore.Config{})
				for n := 0; n < events; n += 60 {
					for i := range streams {
						batch := make([]eventstore.Event, 60)
						for j := range batch {
							batch[j] = eventstore.Event{Type: "x", Data: jsontext.Value(fmt.Sprintf(`{"n":%d}`, n+j+1)), Metadata: eventstore.Metadata{Actor: "é"}}
						}
						mustAppend(t, s, stream(fmt.Sprint(i)), eventstore.Any, batch...)
					}
				}
				for i := range streams {
					_, err := s.CloseStream(t.Context(), stream(fmt.Sprint(i)), eventstore.Any)
					require.NoError(t, err)
				}
				var mu sync.Mutex
				given := map[eventstore.StreamID][]seen{}
				halfway, archived, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
				left := streams * (events + 1)
				if name == "stream" {
					left = events + 1
				}
				handle := func(ctx context.Context, e eventstore.Recorded) {
					mu.Lock()
					given[e.Stream] = append(given[e.Stream], seen{e.Version, string(e.Data) + e.Metadata.Actor})
					left--
					n, all := len(given[stream("0")]), left == 0
					mu.Unlock()
					if e.Stream == stream("0") && n == 100 {
						close(halfway)
						select {
						case <-archived:
						case <-ctx.Done():
						}
					}
					if all {
						close(ended)
					}
				}
				config := scope
				config.InFlight = 8
				if begun {
					config.Begin = func(ctx context.Context, e eventstore.Recorded) func() error {
						return func() error { handle(ctx, e); return nil }
					}
				} else {
					config.Handle = func(ctx context.Context, e eventstore.Recorded) error { handle(ctx, e); return nil }
				}
				subscribe(t, s, config)
				come(t, halfway)
				for i := range streams {
					moved, err := s.Archive(t.Context(), stream(fmt.Sprint(i)))
					require.NoError(t, err)
					require.EqualValues(t, events, moved)
				}
				close(archived)
				come(t, ended)
				want := make([]seen, 0, events+1)
				for n := range int64(events) {
					want = append(want, seen{n + 1, fmt.Sprintf(`{"n":%d}é`, n+1)})
				}
				want = append(want, seen{events + 1, "{}"})
				mu.Lock()
				defer mu.Unlock()
				for id, all := range given {
					require.Equal(t, want, all, id.String())
				}
				parked, err := s.Parked(t.Context(), "sub")
				require.NoError(t, err)
				require.Empty(t, parked)
			})
		}
	}
}

func come(t *testing.T, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		require.FailNow(t, "it does not come")
	}
}
