package sqlitestate_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) state.Driver {
	t.Helper()
	d, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "data", "state.db")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

func TestQueries(t *testing.T) { statetest.RunQueries(t, open) }
