package mesh

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

const (
	scope           = "github.com/bannou-mesh/bannou/pkg/mesh"
	headerRequestID = "X-Request-Id"
)

type requestIDKey struct{}

// WithRequestID returns a context whose calls carry an X-Request-Id, unless the request has one already.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the id that WithRequestID put there, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// An outcome is how a call went, as metrics name it. There are few, so that series stay few.
type outcome string

const (
	outcomeOK          outcome = "ok"          // 1xx, 2xx, 3xx
	outcomeClientError outcome = "clientError" // 4xx
	outcomeServerError outcome = "serverError" // 5xx
	outcomeTimeout     outcome = "timeout"
	outcomeCanceled    outcome = "canceled"
	outcomeNoEndpoint  outcome = "noEndpoint"
	outcomeUnknown     outcome = "unknownTarget"
	outcomeCircuitOpen outcome = "circuitOpen"
	outcomeOverloaded  outcome = "overloaded"
	outcomeFailed      outcome = "failed" // no connection, or one that broke
)

func outcomeOf(resp *http.Response, err error) outcome {
	switch {
	case err == nil && resp.StatusCode >= 500:
		return outcomeServerError
	case err == nil && resp.StatusCode >= 400:
		return outcomeClientError
	case err == nil:
		return outcomeOK
	case errors.Is(err, ErrUnknownTarget):
		return outcomeUnknown
	case errors.Is(err, ErrNoEndpoint):
		return outcomeNoEndpoint
	case errors.Is(err, ErrCircuitOpen):
		return outcomeCircuitOpen
	case errors.Is(err, ErrOverloaded):
		return outcomeOverloaded
	case errors.Is(err, context.DeadlineExceeded):
		return outcomeTimeout
	case errors.Is(err, context.Canceled):
		return outcomeCanceled
	default:
		return outcomeFailed
	}
}

type telemetry struct {
	tracer    trace.Tracer // nil: no spans are made, and the caller's trace is passed on
	spanKind  trace.SpanStartOption
	meter     metric.Meter
	requests  metric.Int64Counter
	duration  metric.Float64Histogram
	ejections metric.Int64Counter
	observing metric.Registration // nil: not begun

	mu     sync.Mutex // one addition to labels at a time
	labels atomic.Pointer[map[label]*measurement]
}

// A measurement is the options that a label's figures are recorded with.
type measurement struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

// A label is what a measurement is filed under. Options for them are made once: making one allocates.
type label struct {
	target  string
	outcome outcome
}

func newTelemetry(meters metric.MeterProvider, tracers trace.TracerProvider) (*telemetry, error) {
	if meters == nil {
		meters = metricnoop.NewMeterProvider()
	}
	meter := meters.Meter(scope)
	requests, err := meter.Int64Counter("bannou.mesh.requests", metric.WithUnit("{request}"),
		metric.WithDescription("Calls to other services, by target app-id and outcome."))
	if err != nil {
		return nil, err
	}
	duration, err := meter.Float64Histogram("bannou.mesh.duration", metric.WithUnit("s"),
		metric.WithDescription("Time until the head of the response, by target app-id and outcome."),
		// The default ones are for milliseconds.
		metric.WithExplicitBucketBoundaries(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	if err != nil {
		return nil, err
	}
	ejections, err := meter.Int64Counter("bannou.mesh.ejections", metric.WithUnit("{ejection}"),
		metric.WithDescription("Instances that were left out for a while because they failed, by target app-id and reason."))
	if err != nil {
		return nil, err
	}
	t := &telemetry{meter: meter, requests: requests, duration: duration, ejections: ejections,
		spanKind: trace.WithSpanKind(trace.SpanKindClient)}
	if tracers != nil {
		t.tracer = tracers.Tracer(scope)
	}
	return t, nil
}

func (t *telemetry) start(ctx context.Context, appID string, req *http.Request) (context.Context, trace.Span) {
	if t.tracer == nil {
		return ctx, tracenoop.Span{}
	}
	return t.tracer.Start(ctx, req.Method+" "+appID, t.spanKind)
}

func (t *telemetry) end(span trace.Span, resp *http.Response, retries int, err error) {
	if !span.IsRecording() {
		return
	}
	if retries > 0 {
		span.SetAttributes(attribute.Int("http.request.resend_count", retries))
	}
	switch {
	case err != nil:
		span.SetStatus(codes.Error, err.Error())
	case resp.StatusCode >= 400:
		span.SetStatus(codes.Error, "HTTP "+strconv.Itoa(resp.StatusCode))
	}
	if resp != nil {
		span.SetAttributes(attribute.Int("http.response.status_code", resp.StatusCode))
	}
}

// noteRetry has the call's span tell of a further attempt, and why it is made.
func noteRetry(ctx context.Context, wait time.Duration, n int, resp *http.Response, err error) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	why := "error"
	if err == nil {
		why = "HTTP " + strconv.Itoa(resp.StatusCode)
	}
	span.AddEvent("retry", trace.WithAttributes(attribute.Int("retry", n), attribute.String("after", why),
		attribute.Float64("wait", wait.Seconds())))
}

// record counts a call. A target that nobody knows is not a label: callers could make any number of them.
func (t *telemetry) record(ctx context.Context, appID string, o outcome, begin time.Time) {
	if o == outcomeUnknown {
		appID = ""
	}
	m := t.measurement(label{appID, o})
	t.requests.Add(ctx, 1, m.add...)
	t.duration.Record(ctx, time.Since(begin).Seconds(), m.record...)
}

func (t *telemetry) measurement(l label) *measurement {
	if labels := t.labels.Load(); labels != nil {
		if m := (*labels)[l]; m != nil {
			return m
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	next := map[label]*measurement{}
	if labels := t.labels.Load(); labels != nil {
		next = maps.Clone(*labels)
	}
	o := metric.WithAttributeSet(attribute.NewSet(
		attribute.String("target", l.target), attribute.String("outcome", string(l.outcome))))
	m := &measurement{add: []metric.AddOption{o}, record: []metric.RecordOption{o}}
	next[l] = m
	t.labels.Store(&next)
	return m
}

// keep forgets the options of targets that are not to be kept. They are made anew when such a one is called.
func (t *telemetry) keep(kept func(appID string) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	labels := t.labels.Load()
	if labels == nil {
		return
	}
	next := make(map[label]*measurement, len(*labels))
	for l, m := range *labels {
		if kept(l.target) {
			next[l] = m
		}
	}
	if len(next) < len(*labels) {
		t.labels.Store(&next)
	}
}
