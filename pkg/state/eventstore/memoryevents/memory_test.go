package memoryevents_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/eventstoretest"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
)

func TestMemory(t *testing.T) {
	eventstoretest.Run(t, func(_ *testing.T, cfg eventstore.Config) *eventstore.Store { return memoryevents.New(cfg) })
}

// A subscription that is closed in the midst of a batch enters what it has handled: nothing comes again, and nothing is left out.
func TestClosedInTheMidst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memoryevents.New(eventstore.Config{})
		const total = 600 // more than a page
		for range total {
			_, err := s.Append(t.Context(), eventstore.StreamID{Category: "test", ID: "a"}, eventstore.Any, eventstore.Event{Type: "x", Data: jsontext.Value("1")})
			require.NoError(t, err)
		}
		var handled []int64
		release := make(chan struct{})
		subscribe := func() *eventstore.Subscription {
			sub, err := s.Subscribe(eventstore.SubscriptionConfig{Name: "sub", Handle: func(_ context.Context, e eventstore.Recorded) error {
				handled = append(handled, e.Position)
				if e.Position == 3 {
					<-release
				}
				return nil
			}})
			require.NoError(t, err)
			return sub
		}
		first := subscribe()
		synctest.Wait()
		require.Equal(t, []int64{1, 2, 3}, handled)
		closed := make(chan error, 1)
		go func() { closed <- first.Close(t.Context()) }()
		synctest.Wait()
		close(release)
		require.NoError(t, <-closed)
		require.Equal(t, []int64{1, 2, 3}, handled)
		second := subscribe()
		synctest.Wait()
		require.Len(t, handled, total)
		for i, position := range handled {
			require.EqualValues(t, i+1, position)
		}
		require.NoError(t, second.Close(t.Context()))
	})
}
