package memorybus

import (
	"context"
	"errors"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Redeliver puts a message into one queue.
func (d *Driver) Redeliver(ctx context.Context, queue string, m *bus.Message) error {
	return errors.ErrUnsupported
}

// Letters reads the dead-letter store.
func (d *Driver) Letters(ctx context.Context) (bus.Letters, error) {
	return nil, errors.ErrUnsupported
}
