package sqliteevents_test

import (
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
	driver, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "events.db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, driver.Close()) })
	s, err := sqliteevents.Open(t.Context(), driver, cfg)
	require.NoError(t, err)
	return s
}

func TestSQLite(t *testing.T) { eventstoretest.Run(t, open) }
