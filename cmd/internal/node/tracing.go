package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/bannou-mesh/bannou/cmd/internal/config"
)

const (
	exportTimeout = 5 * time.Second // of one batch of spans, and of the last one at shutdown
	exportSilence = time.Minute     // between two lines of the log about a collector that does not answer
)

// tracing makes the node's spans and sends them to a collector. The zero value makes none.
type tracing struct{ provider *sdktrace.TracerProvider }

// newTracing does not wait for the collector.
func newTracing(cfg *config.Config, instanceID, version string, log *slog.Logger) (tracing, error) {
	if cfg.Telemetry.OTLPEndpoint == "" {
		return tracing{}, nil
	}
	endpoint, err := url.Parse(cfg.Telemetry.OTLPEndpoint)
	if err != nil {
		return tracing{}, errors.New("--telemetry-otlp-endpoint is not a URL")
	}
	if endpoint.Path == "" || endpoint.Path == "/" {
		endpoint.Path = "/v1/traces"
	}
	exporter, err := otlptracehttp.New(context.Background(), otlptracehttp.WithEndpointURL(endpoint.String()),
		otlptracehttp.WithTimeout(exportTimeout), otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}))
	if err != nil {
		return tracing{}, fmt.Errorf("traces cannot be sent: %w", withoutURL(err))
	}
	return tracing{sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&patientExporter{SpanExporter: exporter, log: log}, sdktrace.WithExportTimeout(exportTimeout)),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.Telemetry.SampleRatio))),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", cfg.AppID),
			attribute.String("service.instance.id", instanceID), attribute.String("service.version", version))),
	)}, nil
}

// tracer is what libraries make their spans with; nil where none are made.
func (t tracing) tracer() trace.TracerProvider {
	if t.provider == nil {
		return nil // and not an interface that holds a nil pointer
	}
	return t.provider
}

// close sends what is left.
func (t tracing) close(ctx context.Context) {
	if t.provider == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, exportTimeout)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // the exporter has logged what could not be sent
}

// patientExporter drops what the collector does not take: a node that works without a collector says so once a minute,
// and does nothing else about it.
type patientExporter struct {
	sdktrace.SpanExporter
	log *slog.Logger

	mu     sync.Mutex
	lost   int // spans since the last line
	silent time.Time
}

func (e *patientExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost += len(spans)
	if now := time.Now(); now.After(e.silent) {
		e.log.Warn("traces were not sent", "spans", e.lost, "error", withoutURL(err))
		e.lost, e.silent = 0, now.Add(exportSilence)
	}
	return nil // the SDK would give it to a handler that the whole process shares
}

// withoutURL is an error without the collector's address, which may hold a secret.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
