package node

import (
	"github.com/bannou-mesh/bannou/cmd/internal/config"
	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// calling is how calls are spread over instances, and what is done when they fail. What is 0 in the settings is negative for the mesh, where 0 is the
// default.
func calling(cfg *config.Mesh) (mesh.ClientConfig, error) {
	balancer, err := mesh.BalancerNamed(cfg.Balancer)
	if err != nil {
		return mesh.ClientConfig{}, err
	}
	c := mesh.ClientConfig{
		Balancer: balancer, Zone: cfg.Zone, SlowStart: cfg.SlowStart, LocalMaxInFlight: cfg.LocalMaxInFlight,
		Ejection: mesh.Ejection{
			Off: !cfg.Ejection, Consecutive: cfg.EjectionFailures, Share: float64(cfg.EjectionPercent) / 100,
			Window: cfg.EjectionWindow, Time: cfg.EjectionTime, PanicBelow: float64(cfg.PanicPercent) / 100,
		},
	}
	if c.SlowStart == 0 {
		c.SlowStart = -1
	}
	if c.Ejection.PanicBelow == 0 {
		c.Ejection.PanicBelow = -1
	}
	c.Policy, c.Policies, err = cfg.Resilience.Compile()
	return c, err
}
