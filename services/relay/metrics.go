package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// relayMetrics count what goes through an outbox.
type relayMetrics struct {
	enqueued, sent, failed metric.Int64Counter

	of metric.MeasurementOption // which outbox
}

func newMetrics(cfg *Config, r *Relay) (*relayMetrics, error) {
	provider := cfg.MeterProvider
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/bannou-mesh/bannou/services/" + cfg.Service)
	prefix := "bannou." + cfg.Service + ".outbox."
	of := metric.WithAttributes(cfg.Attributes...)
	var failures []error
	counter := func(name, text string) metric.Int64Counter {
		c, err := meter.Int64Counter(prefix+name, metric.WithUnit("{event}"), metric.WithDescription(text))
		failures = append(failures, err)
		return c
	}
	m := &relayMetrics{
		of:       of,
		enqueued: counter("enqueued", "events that were put into the outbox"),
		sent:     counter("sent", "events of the outbox that the broker has confirmed"),
		failed:   counter("failed", "events of the outbox that could not be sent, by reason"),
	}
	_, err := meter.Int64ObservableGauge(prefix+"depth", metric.WithUnit("{event}"),
		metric.WithDescription("events that wait in the outbox"),
		metric.WithInt64Callback(func(_ context.Context, to metric.Int64Observer) error {
			to.Observe(r.Figures().Depth, of)
			return nil
		}))
	failures = append(failures, err)
	_, err = meter.Int64ObservableGauge(prefix+"parked", metric.WithUnit("{event}"),
		metric.WithDescription("events of the outbox that no broker takes and that were set aside"),
		metric.WithInt64Callback(func(_ context.Context, to metric.Int64Observer) error {
			to.Observe(r.Figures().Parked, of)
			return nil
		}))
	failures = append(failures, err)
	_, err = meter.Float64ObservableGauge(prefix+"age", metric.WithUnit("s"),
		metric.WithDescription("how long the oldest event in the outbox has waited"),
		metric.WithFloat64Callback(func(_ context.Context, to metric.Float64Observer) error {
			to.Observe(r.Age().Seconds(), of)
			return nil
		}))
	if err := errors.Join(append(failures, err)...); err != nil {
		return nil, fmt.Errorf("relay: metrics: %w", err)
	}
	return m, nil
}

// Age is how long the oldest event has waited, as Figures know it.
func (r *Relay) Age() time.Duration {
	oldest := r.Figures().Oldest
	if oldest.IsZero() {
		return 0
	}
	return max(time.Since(oldest), 0)
}
