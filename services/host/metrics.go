package host

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
)

// Metrics collects what a program measures of itself, for Prometheus to fetch: what goes through its MeterProvider, and
// the Go runtime's and the process's own figures. It is safe for concurrent use.
type Metrics struct {
	provider *sdk.MeterProvider
	registry *prometheus.Registry
}

// NewMetrics makes an empty collection. Give its MeterProvider to the libraries and the whole to the host.
func NewMetrics() (*Metrics, error) {
	registry := prometheus.NewRegistry()
	if err := registry.Register(collectors.NewGoCollector()); err != nil {
		return nil, fmt.Errorf("host: metrics: %w", err)
	}
	if err := registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})); err != nil {
		return nil, fmt.Errorf("host: metrics: %w", err)
	}
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("host: metrics: %w", err)
	}
	return &Metrics{provider: sdk.NewMeterProvider(sdk.WithReader(exporter)), registry: registry}, nil
}

// MeterProvider is what libraries record to.
func (m *Metrics) MeterProvider() metric.MeterProvider { return m.provider }

// Handler answers with the figures in Prometheus' text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 4})
}

// Close ends the collection.
func (m *Metrics) Close(ctx context.Context) error { return m.provider.Shutdown(ctx) }

// An observer counts and times one request.
type observer func(ctx context.Context, method, route string, status int, took time.Duration)

// newObserver returns one that does nothing when there are no metrics.
func newObserver(m *Metrics) (observer, error) {
	if m == nil {
		return func(context.Context, string, string, int, time.Duration) {}, nil
	}
	meter := m.provider.Meter("github.com/bannou-mesh/bannou/services/host")
	duration, err := meter.Float64Histogram("http.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time to answer a request."),
		metric.WithExplicitBucketBoundaries(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	// The labels of an answer are put together once. There are few: routes are those that are mounted.
	type answer struct {
		method, route string
		status        int
	}
	var labels sync.Map // of answer to []metric.RecordOption
	return func(ctx context.Context, method, route string, status int, took time.Duration) {
		a := answer{known(method), route, status}
		options, found := labels.Load(a)
		if !found {
			options, _ = labels.LoadOrStore(a, []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(
				attribute.String("http.request.method", a.method), attribute.String("http.route", route),
				attribute.Int("http.response.status_code", status)))})
		}
		duration.Record(ctx, took.Seconds(), options.([]metric.RecordOption)...) //nolint:forcetypeassert // it holds nothing else
	}, nil
}

// known keeps invented methods from becoming time series.
func known(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	default:
		return "_OTHER"
	}
}
