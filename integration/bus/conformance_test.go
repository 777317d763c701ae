package bus_test

import (
	"testing"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/bustest"
	"github.com/bannou-mesh/bannou/pkg/bus/rabbitbus"
)

// fresh is a virtual host for each case.
func fresh(t testing.TB) bustest.Setup {
	broker := servers.RabbitMQ(t)
	return bustest.Setup{Node: func(t testing.TB) bus.Driver {
		return open(t, broker.URL, func(c *rabbitbus.Config) { c.ManagementURL = broker.API })
	}}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	bustest.Run(t, fresh, bustest.Features{Priorities: true, Expiration: true, DeadLetterStore: "bannou-dlx-store"})
}

func TestWatermillSuite(t *testing.T) {
	t.Parallel()
	bustest.RunWatermill(t, fresh)
}
