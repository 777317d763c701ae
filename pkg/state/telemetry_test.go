package state_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

func TestMetrics(t *testing.T) {
	reader := sdk.NewManualReader()
	f := newFactory(t, memorystate.New(), state.Options{MeterProvider: sdk.NewMeterProvider(sdk.WithReader(reader))}, "s")
	store, err := state.Open[int](t.Context(), f, "s")
	require.NoError(t, err)
	_, err = store.Save(t.Context(), "k", 1)
	require.NoError(t, err)
	_, err = store.Get(t.Context(), "absent")
	require.ErrorIs(t, err, state.ErrNotFound)
	for range 2 {
		_, err = store.TrySave(t.Context(), "k", 1, "")
		require.ErrorIs(t, err, state.ErrConflict)
	}

	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	counts := map[string]int64{}
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				name := m.Name
				for _, label := range p.Attributes.ToSlice() {
					name += " " + label.Value.AsString()
				}
				counts[name] += p.Value
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				counts[m.Name] += int64(p.Count)
			}
		}
	}
	require.Equal(t, map[string]int64{
		"bannou.state.operations memory save s":          1,
		"bannou.state.operations memory get s":           1,
		"bannou.state.operations memory try_save s":      2,
		"bannou.state.errors memory conflict try_save s": 2,
		"bannou.state.duration":                          4,
	}, counts)
}
