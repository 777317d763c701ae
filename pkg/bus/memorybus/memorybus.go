// Package memorybus is a broker in this process's memory, a driver for package bus.
package memorybus

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Config is how the broker behaves. The zero value is complete.
type Config struct {
	// Exchange is where messages go that name none. Default "bannou".
	Exchange string
	// DeadLetterExchange is where expired messages go. Default "bannou-dlx".
	DeadLetterExchange string
	// MaxQueueLength is how many messages a queue holds, delivered and delayed ones included. When a queue is full,
	// Publish to it waits until there is room or its context ends. Default 100 000.
	MaxQueueLength int
	// Logger receives what an operator should know. Default: nothing is logged.
	Logger *slog.Logger
	// MeterProvider receives the metrics bannou.memorybus.*. Default: none are kept.
	MeterProvider metric.MeterProvider
}

// Driver is a broker in memory. Several buses on one Driver are several nodes on one broker.
type Driver struct{}

var _ bus.Driver = (*Driver)(nil)

// New makes an empty broker.
func New(cfg Config) *Driver { return &Driver{} }

func (d *Driver) Backend() string                                                  { return "memory" }
func (d *Driver) Publish(ctx context.Context, m *bus.Message) error                { return nil }
func (d *Driver) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) { return nil, nil }
func (d *Driver) Queues(ctx context.Context) ([]bus.QueueInfo, error)              { return nil, nil }
func (d *Driver) DeleteQueue(ctx context.Context, name string) error               { return nil }
func (d *Driver) Ready(ctx context.Context) error                                  { return nil }
func (d *Driver) Close(ctx context.Context) error                                  { return nil }
