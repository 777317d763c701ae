package state_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

func TestMySQLInbox(t *testing.T) {
	statetest.RunInbox(t, func(t *testing.T) statetest.InboxPlace { return inboxPlace(t, servers.MySQL(t).DSN) })
}

func inboxPlace(t *testing.T, dsn string) statetest.InboxPlace {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return statetest.InboxPlace{DB: db, Open: func(t *testing.T, sweepInterval time.Duration) state.InboxDriver {
		return newMySQL(t, mysqlstate.Config{DSN: dsn, SweepInterval: sweepInterval})
	}}
}
