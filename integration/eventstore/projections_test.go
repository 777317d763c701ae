package eventstore_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection/projectiontest"
)

// placeOf is a database of its own for each test.
func placeOf(dsn func(t *testing.T) string) func(t *testing.T) projectiontest.Place {
	return func(t *testing.T) projectiontest.Place {
		t.Helper()
		name := dsn(t)
		db, err := sql.Open("mysql", name)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, db.Close()) })
		return projectiontest.Place{DB: db, Open: func(t *testing.T) *eventstore.Store {
			t.Helper()
			return open(t, name, eventstore.Config{})
		}}
	}
}

func TestMySQLProjections(t *testing.T) {
	projectiontest.Run(t, placeOf(func(t *testing.T) string { return servers.MySQL(t).DSN }))
}

func TestMySQL8Projections(t *testing.T) {
	server := servers.NewMySQL8(t, servers.MySQLOptions{})
	projectiontest.Run(t, placeOf(func(t *testing.T) string { return server.NewDatabase(t).DSN }))
}
