package memorystate_test

import (
	"testing"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

func TestInbox(t *testing.T) {
	statetest.RunInbox(t, func(*testing.T) statetest.InboxPlace {
		d := memorystate.New()
		return statetest.InboxPlace{Open: func(*testing.T, time.Duration) state.InboxDriver { return d }}
	})
}
