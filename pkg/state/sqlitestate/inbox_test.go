package sqlitestate_test

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

func TestInbox(t *testing.T) {
	statetest.RunInbox(t, func(t *testing.T) statetest.InboxPlace {
		path := filepath.Join(t.TempDir(), "state.db")
		db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(10000)")
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		return statetest.InboxPlace{DB: db, Open: func(t *testing.T, sweepInterval time.Duration) state.InboxDriver {
			d, err := sqlitestate.New(sqlitestate.Config{Path: path, SweepInterval: sweepInterval})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, d.Close()) })
			return d
		}}
	})
}
