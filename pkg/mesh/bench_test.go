package mesh_test

import (
	"fmt"
	"runtime"
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

func manyInstances(t testing.TB) *mesh.Client { return manyInstancesOf(t, mesh.ClientConfig{}) }

func manyInstancesOf(t testing.TB, cfg mesh.ClientConfig) *mesh.Client {
	w := newWorld(t)
	mappings := map[string]string{}
	for i := range 1000 {
		app := fmt.Sprintf("app-%d", i/100)
		w.register(t, endpoint(app, fmt.Sprintf("node-%03d", i), "state"))
		mappings[fmt.Sprintf("service-%d", i/100)] = app
	}
	_, err := w.registry.SetMappings(t.Context(), mappings, "")
	require.NoError(t, err)
	return w.client(t, cfg)
}

func TestFindingAnInstanceAllocatesNothing(t *testing.T) {
	for _, name := range mesh.BalancerNames() {
		balancer, err := mesh.BalancerNamed(name)
		require.NoError(t, err)
		c := manyInstancesOf(t, mesh.ClientConfig{Balancer: balancer})
		assert.Zero(t, testing.AllocsPerRun(1000, func() {
			if _, err := c.Route("service-7"); err != nil {
				t.Fatal(err)
			}
		}), name)
	}
}

// BenchmarkPick is a pick among 100 instances from 64 goroutines, the whole of what a call pays to find its instance.
func BenchmarkPick(b *testing.B) {
	for _, name := range mesh.BalancerNames() {
		balancer, err := mesh.BalancerNamed(name)
		require.NoError(b, err)
		c := manyInstancesOf(b, mesh.ClientConfig{Balancer: balancer})
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(64 / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := c.Route("service-7"); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
