package eventstore_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// Steps that have all connections of the pool read what is personal and what is archived on those: none waits for another one's.
func TestStepsNeedNoSecondConnection(t *testing.T) {
	const steps = 2
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: servers.MySQL(t).DSN, MaxConns: steps})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, driver.Close()) })
	log, err := mysqlevents.Open(driver, eventstore.Config{KeyCache: -1})
	require.NoError(t, err)
	stream := eventstore.StreamID{Category: "person", ID: "ada"}
	_, err = log.Append(t.Context(), stream, eventstore.NoStream, eventstore.Event{Type: "named", Data: jsontext.Value(`{"name":"Ada"}`),
		Personal: eventstore.Personal{Members: []jsontext.Pointer{"/name"}}})
	require.NoError(t, err)
	_, err = log.CloseStream(t.Context(), stream, 1)
	require.NoError(t, err)
	moved, err := log.Archive(t.Context(), stream)
	require.NoError(t, err)
	require.EqualValues(t, 1, moved)

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var begun sync.WaitGroup
	begun.Add(steps)
	results := make(chan error, steps)
	for i := range steps {
		entered := sync.OnceFunc(begun.Done)
		go func() {
			defer entered() // the others do not wait for who did not come so far
			results <- log.Engine().ChangeProjection(ctx, fmt.Sprintf("p%d", i), func(w eventstore.Within, _ []byte) ([]byte, error) {
				entered()
				begun.Wait()
				events, _, err := w.Read(ctx, eventstore.Range{Category: "person", Limit: 10})
				if err == nil {
					err = log.Reveal(ctx, w, events)
				}
				if err == nil && string(events[0].Data) != `{"name":"Ada"}` {
					err = fmt.Errorf("the step reads %s", events[0].Data)
				}
				return []byte(`{}`), err
			})
		}()
	}
	for range steps {
		require.NoError(t, <-results)
	}
}
