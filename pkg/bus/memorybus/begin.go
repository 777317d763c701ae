package memorybus

import (
	"context"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Begin publishes: in memory there is nothing to wait for afterwards.
func (d *Driver) Begin(ctx context.Context, m *bus.Message) (confirm func() error) {
	err := d.Publish(ctx, m)
	return func() error { return err }
}
