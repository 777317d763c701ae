package connect

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// meter is the metrics of the service.
type meter struct {
	frames, events, refusals, sheds, handshakes metric.Int64Counter

	duration     metric.Float64Histogram
	inbound      metric.MeasurementOption
	outbound     metric.MeasurementOption
	registration metric.Registration
}

func newMeter(provider metric.MeterProvider, sessions func() int) (*meter, error) {
	m := provider.Meter("github.com/bannou-mesh/bannou/services/connect")
	v := &meter{inbound: reasoned("direction", "in"), outbound: reasoned("direction", "out")}
	var errs []error
	counter := func(name, unit, description string) metric.Int64Counter {
		c, err := m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}
	v.frames = counter("bannou.connect.frames", "{frame}", "Messages of clients (in), and to them (out).")
	v.events = counter("bannou.connect.events", "{event}", "Events that were handed to connections.")
	v.refusals = counter("bannou.connect.refused", "{frame}", "Messages that were refused, by reason: rate, flood, calls, channels, forbidden, malformed, too_big.")
	v.sheds = counter("bannou.connect.shed", "{connection}", "Connections that were cut off, by reason: outgoing, write_timeout, unacknowledged, overflow.")
	v.handshakes = counter("bannou.connect.handshakes", "{connection}", "Tries to connect, by outcome: connected, resumed, unauthorized, full, failed.")
	var err error
	v.duration, err = m.Float64Histogram("bannou.connect.call.duration", metric.WithUnit("s"), metric.WithDescription("Time of calls, by service and code."))
	errs = append(errs, err)
	gauge, err := m.Int64ObservableGauge("bannou.connect.sessions", metric.WithUnit("{connection}"), metric.WithDescription("Connections of this node."))
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	v.registration, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(gauge, int64(sessions()))
		return nil
	}, gauge)
	return v, err
}

func reasoned(key, value string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String(key, value)))
}

func (m *meter) in(n int)                  { m.frames.Add(context.Background(), int64(n), m.inbound) }
func (m *meter) out(n int)                 { m.frames.Add(context.Background(), int64(n), m.outbound) }
func (m *meter) event(ctx context.Context) { m.events.Add(ctx, 1) }
func (m *meter) close() error              { return m.registration.Unregister() }
func (m *meter) refused(ctx context.Context, reason string) {
	m.refusals.Add(ctx, 1, reasoned("reason", reason))
}
func (m *meter) shed(ctx context.Context, reason string) {
	m.sheds.Add(ctx, 1, reasoned("reason", reason))
}
func (m *meter) handshake(ctx context.Context, outcome string) {
	m.handshakes.Add(ctx, 1, reasoned("outcome", outcome))
}

func (m *meter) called(ctx context.Context, service string, code Code, took time.Duration) {
	m.duration.Record(ctx, took.Seconds(), metric.WithAttributeSet(attribute.NewSet(
		attribute.String("service", service), attribute.Int("code", int(code)))))
}
