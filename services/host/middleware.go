package host

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/bannou-mesh/bannou/services/problem"
)

// requestIDHeader names a request in answers, logs and the requests that it causes.
const requestIDHeader = "X-Request-Id"

type requestIDKey struct{}

// RequestID is the id of the request that ctx belongs to, empty outside of one.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// middleware wraps what every request goes through around next.
func (h *Host) middleware(next http.Handler) (http.Handler, error) {
	observe, err := newObserver(h.cfg.Metrics)
	if err != nil {
		return nil, err
	}
	tracer := h.cfg.TracerProvider.Tracer("github.com/bannou-mesh/bannou/services/host")
	propagator := propagation.TraceContext{}
	foreign := http.NewCrossOriginProtection()

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		id := requestID(r)
		r.Header.Set(requestIDHeader, id) // for what passes the request on
		w.Header().Set(requestIDHeader, id)
		ctx := r.Context()
		if len(r.Header["Traceparent"]) > 0 { // a tracestate alone means nothing
			ctx = propagator.Extract(ctx, propagation.HeaderCarrier(r.Header))
		}
		ctx, span := tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
		ctx = context.WithValue(ctx, requestIDKey{}, id)
		if h.cfg.RequestContext != nil {
			ctx = h.cfg.RequestContext(ctx, id)
		}
		r = r.WithContext(ctx)
		answer := &recorder{ResponseWriter: w}

		defer func() {
			abort := h.recovered(r, answer, recover())
			h.finish(r, answer, span, time.Since(begin), observe)
			h.tell(r, answer)
			if abort {
				panic(http.ErrAbortHandler) // net/http closes the connection, silently
			}
		}()
		if err := foreign.Check(r); err != nil {
			problem.Write(answer, problem.New(problem.CrossOrigin,
				"a browser sent this from a page of another origin; call from a program, or from the node's own origin"))
			return
		}
		next.ServeHTTP(answer, r)
	}), nil
}

// counted counts what next serves among the requests under way.
func (h *Host) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.flights.Add(1)
		defer h.flights.Add(-1)
		next.ServeHTTP(w, r)
	})
}

// requestID takes over an id that is short and plain enough for logs, and makes one otherwise.
func requestID(r *http.Request) string {
	id := r.Header.Get(requestIDHeader)
	if id == "" || len(id) > 128 {
		return newID()
	}
	for i := range len(id) {
		c := id[i]
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			c == '-' || c == '_' || c == '.' || c == ':'
		if !plain {
			return newID()
		}
	}
	return id
}

func newID() string {
	id, err := uuid.NewV7()
	if err != nil { // the system has no randomness left; an id is not worth failing for
		return "none"
	}
	return id.String()
}

// recovered answers for a handler that panicked. It reports whether the connection has to be cut, because the answer
// had begun.
func (h *Host) recovered(r *http.Request, answer *recorder, p any) (abort bool) {
	if p == nil {
		return false
	}
	if p == http.ErrAbortHandler { //nolint:errorlint // a sentinel thrown as it is
		return true
	}
	h.cfg.Logger.ErrorContext(r.Context(), "a handler panicked", "request", RequestID(r.Context()),
		"method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	internal := problem.From(fmt.Errorf("panic: %v", p))
	if answer.status != 0 {
		answer.problem = internal
		return true
	}
	problem.Write(answer, internal)
	return false
}

// finish ends the request's span, counts it and logs it.
func (h *Host) finish(r *http.Request, answer *recorder, span trace.Span, took time.Duration, observe observer) {
	route := answer.route
	if answer.status == 0 {
		answer.status = http.StatusOK
	}
	if span.IsRecording() {
		span.SetName(r.Method + " " + route)
		span.SetAttributes(attribute.String("http.request.method", r.Method), attribute.String("http.route", route),
			attribute.Int("http.response.status_code", answer.status))
		if answer.status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(answer.status))
		}
	}
	span.End()
	observe(r.Context(), r.Method, route, answer.status, took)
	level := slog.LevelDebug
	if answer.status == http.StatusInternalServerError {
		level = slog.LevelError
	}
	if h.cfg.Logger.Enabled(r.Context(), level) {
		attrs := []slog.Attr{
			slog.String("request", RequestID(r.Context())), slog.String("method", r.Method),
			slog.String("path", r.URL.Path), slog.Int("status", answer.status), slog.Int64("bytes", answer.bytes),
			slog.Duration("took", took), slog.String("remote", r.RemoteAddr),
		}
		if p := answer.problem; p != nil {
			attrs = append(attrs, slog.String("code", string(p.Code)), slog.String("detail", p.Detail))
			if cause := p.Unwrap(); cause != nil {
				attrs = append(attrs, slog.Any("error", cause))
			}
		}
		h.cfg.Logger.LogAttrs(r.Context(), level, "request", attrs...)
	}
}
