package sqliteevents_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection/projectiontest"
)

func TestSQLiteProjections(t *testing.T) {
	projectiontest.Run(t, func(t *testing.T) projectiontest.Place {
		t.Helper()
		path := filepath.Join(t.TempDir(), "events.db")
		db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		return projectiontest.Place{DB: db, Open: func(t *testing.T) *eventstore.Store {
			t.Helper()
			return openFile(t, path, eventstore.Config{})
		}}
	})
}
