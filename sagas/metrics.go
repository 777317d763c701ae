package sagas

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// metrics are the instruments of an engine, each with the saga's name as the label "saga".
type metrics struct {
	started, ended, parked, transitions, policies, conflicts metric.Int64Counter
	registration                                             metric.Registration
}

func newMetrics(provider metric.MeterProvider, e *Engine) (*metrics, error) {
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/bannou-mesh/bannou/sagas")
	m := &metrics{}
	var errs []error
	counter := func(name, unit, description string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}
	m.started = counter("bannou.sagas.started", "{instance}", "Instances that were started.")
	m.ended = counter("bannou.sagas.ended", "{instance}", "Instances that ended, by outcome.")
	m.parked = counter("bannou.sagas.parked", "{instance}", "How often an instance was parked.")
	m.transitions = counter("bannou.sagas.transitions", "{transition}", "States that were entered.")
	m.policies = counter("bannou.sagas.unexpected", "{message}", "Messages that no state waited for, by what became of them.")
	m.conflicts = counter("bannou.sagas.conflicts", "{attempt}", "Turns that were decided anew because another message was faster.")
	gauge := func(name, description string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge(name, metric.WithUnit("{instance}"), metric.WithDescription(description))
		errs = append(errs, err)
		return g
	}
	open := gauge("bannou.sagas.open", "Instances that have not ended, of the partitions of this process.")
	waiting := gauge("bannou.sagas.waiting", "Instances that are parked, of the partitions of this process.")
	age, err := meter.Float64ObservableGauge("bannou.sagas.oldest", metric.WithUnit("s"),
		metric.WithDescription("How long ago the oldest instance was started that has not ended and is not parked, of the partitions of this process; 0: there is none."))
	errs = append(errs, err)
	m.registration, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, f := range e.families {
			if f.agenda == nil {
				continue
			}
			s := f.agenda.summary()
			o.ObserveInt64(open, s.open, ofSaga(f.name))
			o.ObserveInt64(waiting, s.parked, ofSaga(f.name))
			seconds := 0.0
			if !s.oldest.IsZero() {
				seconds = time.Since(s.oldest).Seconds()
			}
			o.ObserveFloat64(age, seconds, ofSaga(f.name))
		}
		return nil
	}, open, waiting, age)
	return m, errors.Join(append(errs, err)...)
}

func ofSaga(name string) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("saga", name))
}

// turn counts what a turn made of an instance.
func (m *metrics) turn(ctx context.Context, saga string, before, after *Instance) {
	label := ofSaga(saga)
	if before.State == "" && after.State != "" {
		m.started.Add(ctx, 1, label)
	}
	if n := after.Entry - before.Entry; n > 0 {
		m.transitions.Add(ctx, int64(n), label)
	}
	if after.Status == before.Status {
		return
	}
	if after.Status == Parked {
		m.parked.Add(ctx, 1, label)
	}
	if after.Status.Ended() {
		m.ended.Add(ctx, 1, label, metric.WithAttributes(attribute.String("outcome", string(after.Status))))
	}
}

func (m *metrics) policy(ctx context.Context, saga string, p Policy) {
	if p != "" {
		m.policies.Add(ctx, 1, ofSaga(saga), metric.WithAttributes(attribute.String("policy", string(p))))
	}
}

func (m *metrics) conflict(ctx context.Context, saga string) { m.conflicts.Add(ctx, 1, ofSaga(saga)) }

func (m *metrics) close() error { return m.registration.Unregister() }
