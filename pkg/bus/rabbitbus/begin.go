package rabbitbus

import (
	"context"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Begin publishes.
func (d *Driver) Begin(ctx context.Context, m *bus.Message) (confirm func() error) {
	err := d.Publish(ctx, m)
	return func() error { return err }
}
