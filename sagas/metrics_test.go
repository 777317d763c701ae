package sagas_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/bannou-mesh/bannou/sagas"
)

// figures are the metrics by name, and the labels besides the saga.
func figures(t *testing.T, reader sdkmetric.Reader) map[string]float64 {
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	found := map[string]float64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				enter(found, m.Name, data.DataPoints)
			case metricdata.Gauge[int64]:
				enter(found, m.Name, data.DataPoints)
			case metricdata.Gauge[float64]:
				enter(found, m.Name, data.DataPoints)
			}
		}
	}
	return found
}

func enter[N int64 | float64](found map[string]float64, name string, points []metricdata.DataPoint[N]) {
	for _, p := range points {
		labels := []string{strings.TrimPrefix(name, "bannou.sagas.")}
		for _, l := range p.Attributes.ToSlice() {
			if l.Key != "saga" {
				labels = append(labels, l.Value.AsString())
			}
		}
		found[strings.Join(labels, " ")] += float64(p.Value)
	}
}

// Each figure tells what happened to three orders: one is confirmed, one is refused and compensated, and one parks.
func TestMetrics(t *testing.T) { synctest.Test(t, testMetrics) }

func testMetrics(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	w := newWorld(t)
	w.lease = 200 * time.Millisecond
	w.meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	d := orders()
	d.Retry = sagas.Retry{Attempts: 1}
	r := w.start(false, built(t, d))
	for n, status := range []sagas.Status{sagas.Completed, sagas.Compensated, sagas.Parked} {
		w.calls.set(func(_ context.Context, method, _ string) (jsontext.Value, error) {
			switch {
			case method == "charge" && status == sagas.Compensated:
				return nil, &sagas.Refusal{Status: 402, Detail: "too little"}
			case status == sagas.Parked:
				return nil, errors.New("away")
			}
			return nil, nil
		})
		r.publish(t, "order.placed", fmt.Sprint("o-", n))
		r.becomes(t, fmt.Sprint("o-", n), status)
	}
	r.publish(t, "stock.reserved", "o-0") // late
	want := map[string]float64{
		"started": 3, "ended completed": 1, "ended compensated": 1, "parked": 1, "transitions": 7, "unexpected ignore": 1, "open": 1, "waiting": 1, "oldest": 0,
	}
	var got map[string]float64
	require.Eventually(t, func() bool {
		got = figures(t, reader)
		delete(got, "conflicts")
		return len(got) == len(want) && !slices.ContainsFunc([]string{"open", "waiting", "unexpected ignore"}, func(name string) bool { return got[name] != want[name] })
	}, 10*time.Second, 5*time.Millisecond, "%v", &got)
	require.Equal(t, want, got)
	r.stop()
	require.NotContains(t, figures(t, reader), "open", "what an engine that has ended observes")
}
