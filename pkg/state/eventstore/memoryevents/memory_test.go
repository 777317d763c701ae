package memoryevents_test

import (
	"testing"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/eventstoretest"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/memoryevents"
)

func TestMemory(t *testing.T) {
	eventstoretest.Run(t, func(_ *testing.T, cfg eventstore.Config) *eventstore.Store { return memoryevents.New(cfg) })
}
