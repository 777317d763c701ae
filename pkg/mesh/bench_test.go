package mesh_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// BenchmarkRoute is what a call pays to find its instance: one of 100 of an app-id, one of ten.
func BenchmarkRoute(b *testing.B) {
	c := manyInstances(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Route("service-7"); err != nil {
			b.Fatal(err)
		}
	}
}

func manyInstances(t testing.TB) *mesh.Client {
	w := newWorld(t)
	mappings := map[string]string{}
	for i := range 1000 {
		app := fmt.Sprintf("app-%d", i/100)
		w.register(t, endpoint(app, fmt.Sprintf("node-%03d", i), "state"))
		mappings[fmt.Sprintf("service-%d", i/100)] = app
	}
	_, err := w.registry.SetMappings(t.Context(), mappings, "")
	require.NoError(t, err)
	return w.client(t, mesh.ClientConfig{})
}

func TestFindingAnInstanceAllocatesNothing(t *testing.T) {
	c := manyInstances(t)
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		if _, err := c.Route("service-7"); err != nil {
			t.Fatal(err)
		}
	}))
}
