package rabbitbus

import (
	"context"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Driver is a RabbitMQ broker or cluster.
type Driver struct{}

var _ bus.Driver = (*Driver)(nil)

// New makes a driver. It does not wait for the broker.
func New(cfg Config) (*Driver, error) {
	if err := cfg.withDefaults().check(); err != nil {
		return nil, err
	}
	return &Driver{}, nil
}

func (d *Driver) Backend() string                                                  { return "rabbitmq" }
func (d *Driver) Publish(ctx context.Context, m *bus.Message) error                { return bus.ErrUnavailable }
func (d *Driver) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) { return nil, bus.ErrUnavailable }
func (d *Driver) Queues(ctx context.Context) ([]bus.QueueInfo, error)              { return nil, bus.ErrUnavailable }
func (d *Driver) DeleteQueue(ctx context.Context, name string) error               { return bus.ErrUnavailable }
func (d *Driver) Ready(ctx context.Context) error                                  { return bus.ErrUnavailable }
func (d *Driver) Close(ctx context.Context) error                                  { return nil }
