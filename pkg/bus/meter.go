package bus

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// meter counts for one subscription, or for all dynamic ones together. Its labels are made once, not for each delivery.
type meter struct {
	instruments
	label   attribute.KeyValue
	adds    []metric.AddOption
	records []metric.RecordOption
}

func (t *telemetry) meter(subscription string) *meter {
	label := attribute.String("subscription", subscription)
	set := metric.WithAttributeSet(attribute.NewSet(label))
	return &meter{instruments: t.instruments, label: label, adds: []metric.AddOption{set}, records: []metric.RecordOption{set}}
}

func (m *meter) with(name, value string) metric.AddOption {
	return metric.WithAttributeSet(attribute.NewSet(m.label, attribute.String(name, value)))
}

func (m *meter) begun(ctx context.Context) { m.inFlight.Add(ctx, 1, m.adds...) }

func (m *meter) ended(ctx context.Context, took time.Duration) {
	m.inFlight.Add(ctx, -1, m.adds...)
	m.handleDuration.Record(ctx, took.Seconds(), m.records...)
}

func (m *meter) lagged(ctx context.Context, by time.Duration) {
	m.lag.Record(ctx, max(0, by.Seconds()), m.records...) // clocks differ
}

func (m *meter) handled(ctx context.Context)  { m.instruments.handled.Add(ctx, 1, m.adds...) }
func (m *meter) failed(ctx context.Context)   { m.instruments.failed.Add(ctx, 1, m.adds...) }
func (m *meter) requeued(ctx context.Context) { m.instruments.requeued.Add(ctx, 1, m.adds...) }

func (m *meter) retried(ctx context.Context, when string) {
	m.instruments.retried.Add(ctx, 1, m.with("when", when))
}

func (m *meter) deadLettered(ctx context.Context, why string) {
	m.instruments.deadLettered.Add(ctx, 1, m.with("reason", why))
}

func (m *meter) dropped(ctx context.Context, why string) {
	m.instruments.dropped.Add(ctx, 1, m.with("reason", why))
}

// discarded counts dead letters that somebody removed.
func (t *telemetry) discarded(ctx context.Context, letters int64) {
	t.instruments.dropped.Add(ctx, letters, metric.WithAttributes(attribute.String("reason", "discarded")))
}
