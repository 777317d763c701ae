package sqlitestate_test

import (
	"path/filepath"
	"testing"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

func TestOutbox(t *testing.T) {
	statetest.RunOutbox(t, func(t *testing.T) func(t *testing.T) state.OutboxDriver {
		path := filepath.Join(t.TempDir(), "state.db")
		return func(t *testing.T) state.OutboxDriver { return openAt(t, path) }
	})
}

func TestAnnounced(t *testing.T) {
	statetest.RunAnnounced(t, func(t *testing.T) func(t *testing.T) state.Announcer {
		path := filepath.Join(t.TempDir(), "state.db")
		return func(t *testing.T) state.Announcer { return openAt(t, path) }
	})
}
