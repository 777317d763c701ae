package memorybus

import (
	"cmp"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// DeadLetterStore is the queue that keeps dead letters.
const DeadLetterStore = "bannou-dlx-store"

// Config is how the broker behaves. The zero value is complete.
type Config struct {
	// Exchange is where messages go that name none. Default "bannou".
	Exchange string
	// DeadLetterExchange is where expired messages go, and what the dead-letter store is bound to. Default "bannou-dlx".
	DeadLetterExchange string
	// MaxQueueLength is how many messages a queue holds, delivered and delayed ones included. When a queue is full,
	// Publish to it waits until there is room or its context ends: nothing is dropped, and memory stays bounded.
	// Default 100 000.
	MaxQueueLength int
	// MaxDeadLetters is how many dead letters are kept; the oldest go first, counted and logged. Default 100 000.
	MaxDeadLetters int
	// MaxDeadLetterAge is how long they are kept. Default 7 days.
	MaxDeadLetterAge time.Duration
	// Logger receives what an operator should know. Default: nothing is logged.
	Logger *slog.Logger
	// MeterProvider receives the metric bannou.memorybus.dropped. Default: none is kept.
	MeterProvider metric.MeterProvider
}

func (c Config) withDefaults() Config {
	c.Exchange = cmp.Or(c.Exchange, "bannou")
	c.DeadLetterExchange = cmp.Or(c.DeadLetterExchange, "bannou-dlx")
	c.MaxQueueLength = cmp.Or(c.MaxQueueLength, 100_000)
	c.MaxDeadLetters = cmp.Or(c.MaxDeadLetters, 100_000)
	c.MaxDeadLetterAge = cmp.Or(c.MaxDeadLetterAge, 7*24*time.Hour)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.MeterProvider == nil {
		c.MeterProvider = noop.NewMeterProvider()
	}
	return c
}
