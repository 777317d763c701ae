package bus

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/bannou-mesh/bannou/pkg/bus"

// telemetry holds the bus's instruments. Labels are few on purpose: a static subscription is named by its queue, all
// dynamic ones together are "dynamic", and no metric is labelled with a topic, for topics may name sessions.
type telemetry struct {
	tracer     trace.Tracer
	propagator propagation.TraceContext
	backend    attribute.KeyValue

	published       metric.Int64Counter
	publishDuration metric.Float64Histogram
	handled         metric.Int64Counter
	failed          metric.Int64Counter
	retried         metric.Int64Counter
	deadLettered    metric.Int64Counter
	dropped         metric.Int64Counter
	requeued        metric.Int64Counter
	inFlight        metric.Int64UpDownCounter
	handleDuration  metric.Float64Histogram
}

func newTelemetry(cfg Config, backend string) (*telemetry, error) {
	meter := cfg.MeterProvider.Meter(scope)
	var failures []error
	counter := func(name, unit, text string) metric.Int64Counter {
		c, err := meter.Int64Counter("bannou.bus."+name, metric.WithUnit(unit), metric.WithDescription(text))
		failures = append(failures, err)
		return c
	}
	seconds := func(name, text string) metric.Float64Histogram {
		h, err := meter.Float64Histogram("bannou.bus."+name, metric.WithUnit("s"), metric.WithDescription(text),
			metric.WithExplicitBucketBoundaries(.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30))
		failures = append(failures, err)
		return h
	}
	inFlight, err := meter.Int64UpDownCounter("bannou.bus.in_flight", metric.WithUnit("{delivery}"),
		metric.WithDescription("deliveries whose handlers are at work"))
	failures = append(failures, err)
	t := &telemetry{
		tracer:          cfg.TracerProvider.Tracer(scope),
		backend:         attribute.String("messaging.system", backend),
		published:       counter("published", "{event}", "events given to the broker, by outcome"),
		publishDuration: seconds("publish.duration", "from Publish to the broker's confirmation"),
		handled:         counter("handled", "{event}", "deliveries handled without an error"),
		failed:          counter("failed", "{call}", "calls of a handler that returned an error or panicked"),
		retried:         counter("retried", "{event}", "failed deliveries that will be handled again, by when"),
		deadLettered:    counter("dead_lettered", "{event}", "events given up and kept as dead letters, by reason"),
		dropped:         counter("dropped", "{event}", "events given up and not kept, by reason"),
		requeued:        counter("requeued", "{event}", "deliveries given back to their queue unhandled"),
		inFlight:        inFlight,
		handleDuration:  seconds("handle.duration", "a delivery's whole way through the middleware, retries in this process included"),
	}
	return t, errors.Join(failures...)
}

// publishing starts the span of one publish and writes it into the message's headers; done ends it.
func (t *telemetry) publishing(ctx context.Context, topic string, m *Message) (_ context.Context, done func(error)) {
	start := time.Now()
	ctx, span := t.tracer.Start(ctx, "publish", trace.WithSpanKind(trace.SpanKindProducer))
	if span.IsRecording() {
		span.SetAttributes(t.backend, attribute.String("messaging.destination.name", topic),
			attribute.String("messaging.message.id", m.ID))
	}
	t.propagator.Inject(ctx, propagation.MapCarrier(m.Headers))
	return ctx, func(err error) {
		outcome := metric.WithAttributes(attribute.String("outcome", publishOutcome(err)))
		t.published.Add(ctx, 1, outcome)
		t.publishDuration.Record(ctx, time.Since(start).Seconds(), outcome)
		fail(span, err)
		span.End()
	}
}

func publishOutcome(err error) string {
	switch {
	case err == nil:
		return "confirmed"
	case errors.Is(err, ErrUnroutable):
		return "unroutable"
	case errors.Is(err, ErrNotConfirmed):
		return "not-confirmed"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	default:
		return "error"
	}
}

// handling starts the span of one delivery, as a child of the publish it comes from; done ends it.
func (t *telemetry) handling(ctx context.Context, w *work) (_ context.Context, done func(error)) {
	start := time.Now()
	ctx = t.propagator.Extract(ctx, propagation.MapCarrier(w.message.Headers))
	ctx, span := t.tracer.Start(ctx, "handle", trace.WithSpanKind(trace.SpanKindConsumer))
	if span.IsRecording() {
		span.SetAttributes(t.backend, attribute.String("messaging.destination.name", w.message.RoutingKey),
			attribute.String("messaging.destination.subscription.name", w.source.queue.Name),
			attribute.String("messaging.message.id", w.message.ID), attribute.Int("bannou.bus.attempt", w.delivery.Attempt()))
	}
	t.inFlight.Add(ctx, 1, w.source.label)
	return ctx, func(err error) {
		t.inFlight.Add(ctx, -1, w.source.label)
		t.handleDuration.Record(ctx, time.Since(start).Seconds(), w.source.label)
		fail(span, err)
		span.End()
	}
}

func reason(s string) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("reason", s))
}

func fail(span trace.Span, err error) {
	if err == nil || !span.IsRecording() {
		return
	}
	span.RecordError(err)
	span.SetStatus(codes.Error, err.Error())
}
