package messaging

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// outboxMetrics count what goes through the outbox.
type outboxMetrics struct {
	enqueued, sent, failed metric.Int64Counter
}

func newOutboxMetrics(provider metric.MeterProvider, o *outbox) (*outboxMetrics, error) {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/bannou-mesh/bannou/services/messaging")
	var failures []error
	counter := func(name, text string) metric.Int64Counter {
		c, err := meter.Int64Counter("bannou.messaging.outbox."+name, metric.WithUnit("{event}"), metric.WithDescription(text))
		failures = append(failures, err)
		return c
	}
	m := &outboxMetrics{
		enqueued: counter("enqueued", "events kept in the outbox because the broker was away or others of their key waited"),
		sent:     counter("sent", "events of the outbox that the broker has confirmed"),
		failed:   counter("failed", "events of the outbox that could not be sent, by reason"),
	}
	_, err := meter.Int64ObservableGauge("bannou.messaging.outbox.depth", metric.WithUnit("{event}"),
		metric.WithDescription("events that wait in the outbox"),
		metric.WithInt64Callback(func(_ context.Context, to metric.Int64Observer) error {
			to.Observe(o.figures().Depth)
			return nil
		}))
	failures = append(failures, err)
	_, err = meter.Int64ObservableGauge("bannou.messaging.outbox.parked", metric.WithUnit("{event}"),
		metric.WithDescription("events of the outbox that no broker takes and that were set aside"),
		metric.WithInt64Callback(func(_ context.Context, to metric.Int64Observer) error {
			to.Observe(o.figures().Parked)
			return nil
		}))
	failures = append(failures, err)
	_, err = meter.Float64ObservableGauge("bannou.messaging.outbox.age", metric.WithUnit("s"),
		metric.WithDescription("how long the oldest event in the outbox has waited"),
		metric.WithFloat64Callback(func(_ context.Context, to metric.Float64Observer) error {
			to.Observe(o.age().Seconds())
			return nil
		}))
	if err := errors.Join(append(failures, err)...); err != nil {
		return nil, fmt.Errorf("messaging: metrics: %w", err)
	}
	return m, nil
}

// age is how long the oldest event has waited.
func (o *outbox) age() time.Duration {
	oldest := o.figures().Oldest
	if oldest.IsZero() {
		return 0
	}
	return max(time.Since(oldest), 0)
}
