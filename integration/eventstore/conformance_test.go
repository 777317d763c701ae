package eventstore_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/eventstoretest"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

func open(t testing.TB, dsn string, cfg eventstore.Config) *eventstore.Store {
	t.Helper()
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: dsn})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, driver.Close()) })
	s, err := mysqlevents.Open(driver, cfg)
	require.NoError(t, err)
	return s
}

func TestMySQL(t *testing.T) {
	eventstoretest.Run(t, func(t *testing.T, cfg eventstore.Config) *eventstore.Store {
		return open(t, servers.MySQL(t).DSN, cfg)
	})
}

// The same on Oracle's MySQL.
func TestMySQL8(t *testing.T) {
	server := servers.NewMySQL8(t, servers.MySQLOptions{})
	eventstoretest.Run(t, func(t *testing.T, cfg eventstore.Config) *eventstore.Store {
		return open(t, server.NewDatabase(t).DSN, cfg)
	})
}

func TestMySQLTransactions(t *testing.T) {
	eventstoretest.RunTransactions(t, func(t *testing.T) (*eventstore.Store, *sql.DB) {
		t.Helper()
		dsn := servers.MySQL(t).DSN
		db, err := sql.Open("mysql", dsn)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		return open(t, dsn, eventstore.Config{}), db
	})
}
