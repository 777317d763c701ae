package memorystate_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
	"github.com/bannou-mesh/bannou/pkg/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDriver(t *testing.T) {
	statetest.Run(t, func(t *testing.T) state.Driver {
		d := memorystate.New()
		t.Cleanup(func() { _ = d.Close() })
		return d
	}, statetest.Features{AnyKeys: true})
}
