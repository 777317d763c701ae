package sqliteevents_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/eventstoretest"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/sqliteevents"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

func open(t *testing.T, cfg eventstore.Config) *eventstore.Store {
	t.Helper()
	return openFile(t, filepath.Join(t.TempDir(), "events.db"), cfg)
}

func openFile(t *testing.T, path string, cfg eventstore.Config) *eventstore.Store {
	t.Helper()
	driver, err := sqlitestate.New(sqlitestate.Config{Path: path})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, driver.Close()) })
	s, err := sqliteevents.Open(t.Context(), driver, cfg)
	require.NoError(t, err)
	return s
}

func TestSQLite(t *testing.T) { eventstoretest.Run(t, open) }

func TestSQLiteTransactions(t *testing.T) {
	eventstoretest.RunTransactions(t, func(t *testing.T) (*eventstore.Store, *sql.DB) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "events.db")
		s := openFile(t, path, eventstore.Config{})
		db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		return s, db
	})
}
