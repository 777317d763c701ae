package bus

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/bannou-mesh/bannou/pkg/bus"

// telemetry holds the bus's spans and instruments. Labels are few on purpose: a static subscription is named by its
// queue, all dynamic ones together are "dynamic", and no metric is labelled with a topic, for topics may name sessions.
type telemetry struct {
	tracer     trace.Tracer // nil: no spans are made, and trace headers are passed on
	propagator propagation.TraceContext
	backend    attribute.KeyValue
	measured   bool // there is somebody to measure for

	published       metric.Int64Counter
	publishDuration metric.Float64Histogram
	instruments     instruments
	dynamic         *meter // of all dynamic subscriptions
}

// instruments are those of subscriptions.
type instruments struct {
	handled        metric.Int64Counter
	failed         metric.Int64Counter
	retried        metric.Int64Counter
	deadLettered   metric.Int64Counter
	dropped        metric.Int64Counter
	requeued       metric.Int64Counter
	inFlight       metric.Int64UpDownCounter
	handleDuration metric.Float64Histogram
	lag            metric.Float64Histogram
}

func newTelemetry(cfg Config, backend string) (*telemetry, error) {
	m := cfg.MeterProvider.Meter(scope)
	var failures []error
	counter := func(name, unit, text string) metric.Int64Counter {
		c, err := m.Int64Counter("bannou.bus."+name, metric.WithUnit(unit), metric.WithDescription(text))
		failures = append(failures, err)
		return c
	}
	seconds := func(name, text string) metric.Float64Histogram {
		h, err := m.Float64Histogram("bannou.bus."+name, metric.WithUnit("s"), metric.WithDescription(text),
			metric.WithExplicitBucketBoundaries(.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800))
		failures = append(failures, err)
		return h
	}
	inFlight, err := m.Int64UpDownCounter("bannou.bus.in_flight", metric.WithUnit("{delivery}"),
		metric.WithDescription("deliveries whose handlers are at work"))
	failures = append(failures, err)
	t := &telemetry{
		backend:         attribute.String("messaging.system", backend),
		measured:        cfg.measured,
		published:       counter("published", "{event}", "events given to the broker, by outcome"),
		publishDuration: seconds("publish.duration", "from Publish to the broker's confirmation"),
		instruments: instruments{
			handled:        counter("handled", "{event}", "deliveries handled without an error"),
			failed:         counter("failed", "{call}", "calls of a handler that returned an error or panicked"),
			retried:        counter("retried", "{event}", "failed deliveries that will be handled again, by when"),
			deadLettered:   counter("dead_lettered", "{event}", "events given up and kept as dead letters, by reason"),
			dropped:        counter("dropped", "{event}", "events given up and not kept, by reason"),
			requeued:       counter("requeued", "{event}", "deliveries given back to their queue unhandled"),
			inFlight:       inFlight,
			handleDuration: seconds("handle.duration", "a delivery's whole way through the middleware, retries in this process included"),
			lag:            seconds("lag", "from an event's publishing to the begin of its first handling, waiting in its queue included"),
		},
	}
	if cfg.TracerProvider != nil {
		t.tracer = cfg.TracerProvider.Tracer(scope)
	}
	t.dynamic = t.meter("dynamic")
	return t, errors.Join(failures...)
}

// publishing starts the span of one publish and writes it into the message's headers; done ends it.
func (t *telemetry) publishing(ctx context.Context, topic string, m *Message) (_ context.Context, done func(error)) {
	if t.tracer == nil && !t.measured {
		t.propagator.Inject(ctx, propagation.MapCarrier(m.Headers))
		return ctx, func(error) {}
	}
	start := time.Now()
	var span trace.Span
	if t.tracer != nil {
		ctx, span = t.tracer.Start(ctx, "publish", trace.WithSpanKind(trace.SpanKindProducer))
		if span.IsRecording() {
			span.SetAttributes(t.backend, attribute.String("messaging.operation.type", "send"),
				attribute.String("messaging.destination.name", topic), attribute.String("messaging.message.id", m.ID))
		}
	}
	t.propagator.Inject(ctx, propagation.MapCarrier(m.Headers))
	return ctx, func(err error) {
		outcome := metric.WithAttributes(attribute.String("outcome", publishOutcome(err)))
		t.published.Add(ctx, 1, outcome)
		t.publishDuration.Record(ctx, time.Since(start).Seconds(), outcome)
		if span != nil {
			fail(span, err)
			span.End()
		}
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

// receiving starts the span of one delivery, as a child of the publish it comes from, and counts it; done ends it.
func (t *telemetry) receiving(ctx context.Context, w *work) (_ context.Context, done func(error)) {
	if t.tracer == nil && !t.measured {
		return t.extract(ctx, w), func(error) {}
	}
	start := time.Now()
	ctx = t.extract(ctx, w)
	var span trace.Span
	if t.tracer != nil {
		ctx, span = t.tracer.Start(ctx, "receive", trace.WithSpanKind(trace.SpanKindConsumer))
		if span.IsRecording() {
			span.SetAttributes(t.backend, attribute.String("messaging.operation.type", "receive"),
				attribute.String("messaging.destination.name", w.message.RoutingKey),
				attribute.String("messaging.destination.subscription.name", w.source.queue.Name),
				attribute.String("messaging.message.id", w.message.ID), attribute.Int("bannou.bus.attempt", w.delivery.Attempt()))
		}
	}
	meter := w.source.meter
	meter.begun(ctx)
	if at, known := publishedAt(w.message); known && w.delivery.Attempt() == 1 {
		meter.lagged(ctx, start.Sub(at))
	}
	return ctx, func(err error) {
		meter.ended(ctx, time.Since(start))
		if span != nil {
			fail(span, err)
			span.End()
		}
	}
}

// extract puts the trace that a message carries into the handler's context.
func (t *telemetry) extract(ctx context.Context, w *work) context.Context {
	if _, traced := w.message.Headers[HeaderTraceParent]; !traced {
		return ctx
	}
	return t.propagator.Extract(ctx, propagation.MapCarrier(w.message.Headers))
}

// handling starts the span of one call of a handler, of which a delivery may have several; done ends it.
func (t *telemetry) handling(ctx context.Context, w *work) (_ context.Context, done func(error)) {
	if t.tracer == nil {
		return ctx, func(error) {}
	}
	ctx, span := t.tracer.Start(ctx, "handle", trace.WithSpanKind(trace.SpanKindInternal))
	if span.IsRecording() {
		span.SetAttributes(attribute.String("messaging.operation.type", "process"),
			attribute.String("messaging.destination.subscription.name", w.source.queue.Name))
	}
	return ctx, func(err error) {
		fail(span, err)
		span.End()
	}
}

// publishedAt is when a message was published: by its id, where that is a UUID of version 7, which has milliseconds; a
// broker's timestamp may have no more than seconds.
func publishedAt(m *Message) (time.Time, bool) {
	if id, err := uuid.Parse(m.ID); err == nil && id.Version() == 7 {
		return time.Unix(id.Time().UnixTime()), true
	}
	return m.Timestamp, !m.Timestamp.IsZero()
}

func fail(span trace.Span, err error) {
	if err == nil || !span.IsRecording() {
		return
	}
	span.RecordError(err)
	span.SetStatus(codes.Error, err.Error())
}
