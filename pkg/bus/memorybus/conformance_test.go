package memorybus_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/bustest"
	"github.com/bannou-mesh/bannou/pkg/bus/memorybus"
)

func TestMain(m *testing.M) {
	// Watermill's own suite reads through many subscribers at once and stops when it has enough: a message that was
	// given back and comes again then leaves its reading goroutines behind.
	const suite = "github.com/ThreeDotsLabs/watermill/internal/subscriber.(*multiplier).Subscribe"
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(suite+".func2"), goleak.IgnoreAnyFunction(suite+".func3"))
}

func broker(t testing.TB) bustest.Setup {
	d := memorybus.New(memorybus.Config{})
	t.Cleanup(func() { require.NoError(t, d.Close(context.Background())) })
	return bustest.Setup{Node: func(testing.TB) bus.Driver { return d }}
}

func TestConformance(t *testing.T) {
	bustest.Run(t, broker, bustest.Features{
		Priorities:      true,
		Expiration:      true,
		DeadLetterStore: memorybus.DeadLetterStore,
	})
}

func TestWatermill(t *testing.T) {
	bustest.RunWatermill(t, broker)
}
