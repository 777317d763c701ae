package state_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

func openMySQL(t *testing.T) state.Driver {
	t.Helper()
	return newMySQL(t, mysqlstate.Config{DSN: servers.MySQL(t).DSN})
}

func newMySQL(t *testing.T, cfg mysqlstate.Config) *mysqlstate.Driver {
	t.Helper()
	d, err := mysqlstate.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// The same cases, and the same random comparison with a plain evaluation, as on SQLite: the rows are the same.
func TestMySQLQueries(t *testing.T) { statetest.RunQueries(t, openMySQL) }
