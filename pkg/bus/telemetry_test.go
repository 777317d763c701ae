package bus_test

import (
	"context"
	"errors"
	"maps"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	api "go.opentelemetry.io/otel/trace"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// What an operator's dashboard counts: each event's fate, once.
func TestMetricsCountFates(t *testing.T) {
	reader := metric.NewManualReader()
	b := start(t, broker(t, true), bus.Config{
		MeterProvider: metric.NewMeterProvider(metric.WithReader(reader)), RetryDelay: 1, RetryMaxAttempts: 2,
	})
	h := func(err error) func(context.Context, *bus.Received) error {
		return func(context.Context, *bus.Received) error { return err }
	}
	broken := errors.New("broken")
	require.NoError(t, b.HandleRaw("a.b", "well", h(nil), bus.SubscriptionOptions{}))
	require.NoError(t, b.HandleRaw("a.b", "broken", h(broken), bus.SubscriptionOptions{}))
	require.NoError(t, b.HandleRaw("a.b", "strict", h(bus.Permanent(broken)), bus.SubscriptionOptions{}))
	require.NoError(t, b.HandleRaw("a.b", "careless", h(bus.Permanent(broken)), bus.SubscriptionOptions{NoDeadLetter: true}))
	run(t, b)
	for range 2 {
		_, err := b.PublishRaw(t.Context(), "a.b", []byte(`{}`), bus.PublishOptions{})
		require.NoError(t, err)
	}
	_, err := b.PublishRaw(t.Context(), "no.where", []byte(`{}`), bus.PublishOptions{Mandatory: true})
	require.ErrorIs(t, err, bus.ErrUnroutable)

	want := map[string]int64{
		"bannou.bus.published":     3,
		"bannou.bus.handled":       2,
		"bannou.bus.failed":        2*4 + 2 + 2, // broken is called 1+1 times on the first delivery, then twice
		"bannou.bus.retried":       2 * 3,
		"bannou.bus.dead_lettered": 4,
		"bannou.bus.dropped":       2,
		"bannou.bus.in_flight":     0,
	}
	var got map[string]int64
	// Counters are read one after another, while handlers are still at work.
	_ = assert.Eventually(t, func() bool { got = collect(t, reader); return maps.Equal(want, got) }, wait, tick)
	require.Equal(t, want, got)
}

// collect sums each counter over its labels.
func collect(t *testing.T, r *metric.ManualReader) map[string]int64 {
	var all metricdata.ResourceMetrics
	require.NoError(t, r.Collect(context.Background(), &all))
	sums := make(map[string]int64)
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if sum, ok := m.Data.(metricdata.Sum[int64]); ok {
				sums[m.Name] = 0
				for _, point := range sum.DataPoints {
					sums[m.Name] += point.Value
				}
			}
		}
	}
	return sums
}

// One trace follows an event from its publisher through its handler to what that publishes.
func TestOneTraceFollowsAnEvent(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	provider := trace.NewTracerProvider(trace.WithSpanProcessor(spans))
	b := start(t, broker(t, true), bus.Config{TracerProvider: provider})
	done := make(chan struct{})
	require.NoError(t, b.HandleRaw("first", "h", func(ctx context.Context, _ *bus.Received) error {
		_, err := b.PublishRaw(ctx, "second", []byte(`{}`), bus.PublishOptions{})
		return err
	}, bus.SubscriptionOptions{}))
	require.NoError(t, b.HandleRaw("second", "h", func(context.Context, *bus.Received) error {
		close(done)
		return nil
	}, bus.SubscriptionOptions{}))
	run(t, b)
	ctx, root := provider.Tracer("test").Start(t.Context(), "request")
	_, err := b.PublishRaw(ctx, "first", []byte(`{}`), bus.PublishOptions{})
	require.NoError(t, err)
	root.End()
	<-done
	require.Eventually(t, func() bool { return len(spans.Ended()) == 7 }, wait, tick)

	parents := make(map[api.SpanID]api.SpanID)
	var last trace.ReadOnlySpan
	for _, s := range spans.Ended() {
		require.Equal(t, root.SpanContext().TraceID(), s.SpanContext().TraceID())
		parents[s.SpanContext().SpanID()] = s.Parent().SpanID()
		if s.Name() == "handle" && (last == nil || s.StartTime().After(last.StartTime())) {
			last = s
		}
	}
	steps := 0
	for id := last.SpanContext().SpanID(); id != root.SpanContext().SpanID(); id = parents[id] {
		steps++
	}
	require.Equal(t, 6, steps, "handle, receive, publish, handle, receive, publish, request")
}
