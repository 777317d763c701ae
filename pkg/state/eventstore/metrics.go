package eventstore

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// subscriptionMetrics are the instruments of one consumer of a subscription, with its name as the label "subscription".
type subscriptionMetrics struct {
	labels                   metric.MeasurementOption
	handled, failed, skipped metric.Int64Counter
	registration             metric.Registration

	mu    sync.Mutex
	parts map[int]backlog
}

// backlog is what a partition has before it.
type backlog struct {
	events int       // positions up to the end
	since  time.Time // when the first of them was appended
}

func newSubscriptionMetrics(provider metric.MeterProvider, name string) (*subscriptionMetrics, error) {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/bannou-mesh/bannou/pkg/state/eventstore")
	m := &subscriptionMetrics{labels: metric.WithAttributes(attribute.String("subscription", name)), parts: map[int]backlog{}}
	var errs [6]error
	m.handled, errs[0] = meter.Int64Counter("bannou.events.subscription.handled", metric.WithUnit("{event}"), metric.WithDescription("Events that were handled."))
	m.failed, errs[1] = meter.Int64Counter("bannou.events.subscription.failed", metric.WithUnit("{attempt}"), metric.WithDescription("Attempts to handle an event that failed."))
	m.skipped, errs[2] = meter.Int64Counter("bannou.events.subscription.skipped", metric.WithUnit("{event}"), metric.WithDescription("Events left for later because their stream is parked."))
	lag, err := meter.Int64ObservableGauge("bannou.events.subscription.lag", metric.WithUnit("{event}"), metric.WithDescription("Positions between what this consumer handles and the end of the log."))
	errs[3] = err
	age, err := meter.Float64ObservableGauge("bannou.events.subscription.age", metric.WithUnit("s"), metric.WithDescription("How long ago the event was appended that is handled next; 0: there is none."))
	errs[4] = err
	m.registration, errs[5] = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		events, oldest := m.backlog(time.Now())
		o.ObserveInt64(lag, int64(events), m.labels)
		o.ObserveFloat64(age, oldest.Seconds(), m.labels)
		return nil
	}, lag, age)
	return m, errors.Join(errs[:]...)
}

// backlog is that of the partition that is furthest behind.
func (m *subscriptionMetrics) backlog(now time.Time) (events int, oldest time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.parts {
		events = max(events, b.events)
		if b.events > 0 {
			oldest = max(oldest, now.Sub(b.since))
		}
	}
	return events, oldest
}

func (m *subscriptionMetrics) behind(part, events int, since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.parts[part] = backlog{events: events, since: since}
}

func (m *subscriptionMetrics) caughtUp(part int) { m.behind(part, 0, time.Time{}) }

func (m *subscriptionMetrics) forget(part int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.parts, part)
}

func (m *subscriptionMetrics) handle(ctx context.Context, n int) {
	m.handled.Add(ctx, int64(n), m.labels)
}
func (m *subscriptionMetrics) fail(ctx context.Context) { m.failed.Add(ctx, 1, m.labels) }
func (m *subscriptionMetrics) skip(ctx context.Context) { m.skipped.Add(ctx, 1, m.labels) }
func (m *subscriptionMetrics) close() error             { return m.registration.Unregister() }
