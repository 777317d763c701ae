package sagas_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/sqliteevents"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/sagas"
)

// setBack is a log in a database that is set back, once, when all partitions have read events and are about to say how far they are.
type setBack struct {
	eventstore.Engine

	mu    sync.Mutex
	read  map[int]bool // the partitions
	lose  func()
	while chan struct{} // closed when it is set back
}

func (s *setBack) Advance(ctx context.Context, l eventstore.Lease, to eventstore.Advance, within func(*sql.Tx) error) error {
	if l.Name == "saga.order.agenda" && len(to.Read) > 0 {
		s.mu.Lock()
		if s.read[l.Part] = true; len(s.read) == 4 && s.lose != nil {
			s.lose()
			s.lose = nil
			close(s.while)
		}
		s.mu.Unlock()
		select {
		case <-s.while:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Engine.Advance(ctx, l, to, within)
}

// A database that is killed loses an instance's beginning that it had shown, and the beginning of another instance takes its position: that one is worked on.
func TestInstanceInThePlaceOfOneThatTheDatabaseHasLost(t *testing.T) {
	synctest.Test(t, testInstanceInThePlaceOfOneThatTheDatabaseHasLost)
}

func testInstanceInThePlaceOfOneThatTheDatabaseHasLost(t *testing.T) {
	w := newWorld(t)
	w.lease = 600 * time.Millisecond
	path := filepath.Join(t.TempDir(), "sagas.db")
	driver, err := sqlitestate.New(sqlitestate.Config{Path: path})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, driver.Close()) })
	log, err := sqliteevents.Open(t.Context(), driver, eventstore.Config{})
	require.NoError(t, err)
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	w.log = eventstore.New(&setBack{Engine: log.Engine(), read: map[int]bool{}, while: make(chan struct{}), lose: func() {
		_, err := db.ExecContext(t.Context(), "UPDATE events SET stream = 'there', event_id = randomblob(16), data = CAST(replace(CAST(data AS TEXT), 'lost', 'there') AS BLOB)")
		require.NoError(t, err)
	}}, eventstore.Config{})
	d := orders()
	d.States[0].On[1] = sagas.After[Order](2*time.Second, sagas.Compensating, nil)
	r := w.start(true, built(t, d))
	require.Eventually(t, func() bool {
		marks, err := w.log.Marks(t.Context(), "saga.order.agenda")
		return err == nil && len(marks) == 4
	}, 20*time.Second, 2*time.Millisecond)
	r.publish(t, "order.placed", "lost")
	r.becomes(t, "there", sagas.Undoing)
}
