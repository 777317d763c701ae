package bus

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
)

// Config is how a Bus behaves. The zero value is complete: every default is named beside its field.
type Config struct {
	// AppID is this program's name, the first part of a default group and the source-service header of what it
	// publishes. Default "bannou".
	AppID string
	// Exchange is where events go when a publish names no other. Default "bannou".
	Exchange string
	// DeadLetterExchange is where events go that no handler could handle. Default "bannou-dlx".
	DeadLetterExchange string

	// PrefetchCount is how many deliveries of one subscription are in work at a time. Default 10.
	PrefetchCount int
	// ImmediateRetries is how often a failed handler is called again at once, in this process, on the first delivery
	// of an event. Default 1; negative: none.
	ImmediateRetries int
	// RetryMaxAttempts is how often an event is delivered again, each time after RetryDelay, before it is
	// dead-lettered. Default 3; negative: none.
	RetryMaxAttempts int
	// RetryDelay is the pause before a redelivery. The broker holds the event meanwhile, no handler sleeps. Default 5 s.
	RetryDelay time.Duration

	// PublishTimeout bounds a Publish whose context has no deadline. Default 30 s.
	PublishTimeout time.Duration
	// CloseTimeout is how long Run lets handlers finish after its context has ended. Default 30 s.
	CloseTimeout time.Duration
	// MaxBodyBytes is the largest body that Publish accepts. Default 16 MiB, RabbitMQ's own limit since 4.0.
	MaxBodyBytes int

	// OnFailure is told of each event that is given up, and of each panic of a handler, on the handler's own goroutine: it
	// must not wait. ctx carries the event's trace. What expires in a queue is not told: where the broker holds the queue,
	// no node sees it. Default: nobody is told.
	OnFailure func(ctx context.Context, f Failure)

	// Logger receives what an operator should know. Default: nothing is logged.
	Logger *slog.Logger
	// MeterProvider receives the metrics bannou.bus.*. Default: none are kept.
	MeterProvider metric.MeterProvider
	// TracerProvider receives a span for each publish, each delivery and each call of a handler. Default: none are made,
	// but trace headers are passed on.
	TracerProvider trace.TracerProvider

	measured bool // MeterProvider was given
}

func (c Config) withDefaults() Config {
	c.AppID = cmp.Or(c.AppID, "bannou")
	c.Exchange = cmp.Or(c.Exchange, "bannou")
	c.DeadLetterExchange = cmp.Or(c.DeadLetterExchange, "bannou-dlx")
	c.PrefetchCount = cmp.Or(c.PrefetchCount, 10)
	c.ImmediateRetries = max(0, cmp.Or(c.ImmediateRetries, 1))
	c.RetryMaxAttempts = max(0, cmp.Or(c.RetryMaxAttempts, 3))
	c.RetryDelay = cmp.Or(c.RetryDelay, 5*time.Second)
	c.PublishTimeout = cmp.Or(c.PublishTimeout, 30*time.Second)
	c.CloseTimeout = cmp.Or(c.CloseTimeout, 30*time.Second)
	c.MaxBodyBytes = cmp.Or(c.MaxBodyBytes, 16<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.measured = c.MeterProvider != nil; !c.measured {
		c.MeterProvider = noop.NewMeterProvider()
	}
	return c
}

// SubscriptionOptions say how one subscription reads. The zero value is right for most.
type SubscriptionOptions struct {
	// Group is the name that competing instances share: each event is handled by one member. Default for Handle:
	// "{AppID}.{name}". Default for Subscribe: none, the subscription has a queue of its own.
	Group string
	// Queue is the queue's name. Default "{topic}.{group}", or "{topic}.dynamic.{uuid}" without a group.
	Queue string
	// Durable keeps a dynamic subscription's queue, and what arrives in it, while nobody reads it; it needs a Group or
	// a Queue. Handle is always durable.
	Durable bool
	// Expires is how long a durable subscription's queue stays while nobody reads it. Default 0: for ever. The queue must not have
	// been made with another time.
	Expires time.Duration
	// Exclusive allows one consumer only. A dynamic subscription without group and queue always is.
	Exclusive bool
	// AutoAck lets the broker forget a delivery when it is sent: at most once. A failure is retried in this process
	// only, and then dead-lettered.
	AutoAck bool
	// PrefetchCount is how many deliveries are in work at a time. Default: the bus's.
	PrefetchCount int
	// NoDeadLetter drops an event that could not be handled after the last retry, or that cannot be decoded, instead
	// of dead-lettering it. It is counted and logged.
	NoDeadLetter bool
	// MaxPerSecond spaces calls of the handler, retries included: it is called at most so often in this process. The
	// events wait in the queue, and those in work count toward PrefetchCount. Default 0: no limit.
	MaxPerSecond float64
	// Timeout ends a handler's context. A handler that fails because of it is retried like any other. Default: none.
	Timeout time.Duration
	// Retry replaces the bus's retry settings for this subscription.
	Retry *RetryPolicy
	// Service names in a Failure whose handler it is, where a program has several services. Default: the AppID.
	Service string
}

// RetryPolicy says how often and when a failed handler is called again. A zero field takes the bus's setting, a
// negative one means none.
type RetryPolicy struct {
	Immediate   int           // calls again at once, in this process
	MaxAttempts int           // redeliveries, each after Delay
	Delay       time.Duration // before each redelivery
}

// PublishOptions change how one event is published. The zero value is right for most.
type PublishOptions struct {
	Exchange      string            // default: the bus's exchange; that of dead letters is not for publishing
	RoutingKey    string            // what a topic may be; default: the topic
	Type          string            // default: the event's name; raw: none
	ContentType   string            // default "application/json"; ignored where the event is typed
	MessageID     string            // default: the event's own id, or a new UUID version 7
	CorrelationID string            // default: inside a handler, that of the event being handled
	PartitionKey  string            // events with the same key are handled in order by each subscription
	Priority      uint8             // 0 to 9
	Expiration    time.Duration     // how long it may wait in a queue before it is dead-lettered; 0: for ever
	Transient     bool              // the broker need not write it to disk
	Mandatory     bool              // ErrUnroutable when no queue would receive it
	Headers       map[string]string // further headers
}
