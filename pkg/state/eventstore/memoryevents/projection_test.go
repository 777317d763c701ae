package memoryevents_test

import (
	"testing"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection/projectiontest"
)

func TestMemoryProjections(t *testing.T) {
	projectiontest.Run(t, func(*testing.T) projectiontest.Place {
		log := memoryevents.New(eventstore.Config{})
		return projectiontest.Place{Open: func(*testing.T) *eventstore.Store { return log }}
	})
}
