package sqliteevents_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// An event whose handler finds the log's own file full waits until there is room, and does not park its stream.
func TestFullDoesNotPark(t *testing.T) {
	s := openFile(t, filepath.Join(t.TempDir(), "events.db"), eventstore.Config{})
	require.NoError(t, s.Engine().Define(t.Context(), "CREATE TABLE kept (b BLOB)"))
	tries, room, done := 0, "1", make(chan struct{}) // less than there is means: what there is
	_, err := s.Append(t.Context(), eventstore.StreamID{Category: "test", ID: "a"}, eventstore.NoStream, eventstore.Event{Type: "x", Data: jsontext.Value("1")})
	require.NoError(t, err)
	sub, err := s.Subscribe(eventstore.SubscriptionConfig{Name: "sub", Attempts: 2, Backoff: time.Millisecond, HandleIn: func(ctx context.Context, tx *sql.Tx, _ eventstore.Recorded) error {
		if tries++; tries == 10 {
			room = "1000000"
			defer close(done)
		}
		if _, err := tx.ExecContext(ctx, "PRAGMA max_page_count = "+room); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO kept (b) VALUES (zeroblob(1000000))")
		return err
	}})
	require.NoError(t, err)
	select {
	case <-done:
	case <-time.After(30 * time.Second):
	}
	require.NoError(t, sub.Close(t.Context()))
	parked, err := s.Parked(t.Context(), "sub")
	require.NoError(t, err)
	require.Empty(t, parked)
	marks, err := s.Marks(t.Context(), "sub")
	require.NoError(t, err)
	require.EqualValues(t, 1, marks[0].Position)
}
