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
	goleak.VerifyTestMain(m, bustest.WatermillGoroutines()...)
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
