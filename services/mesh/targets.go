package mesh

import (
	"context"
	"time"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/mesh/meshapi"
)

// Targets is POST /mesh/targets.
func (s *Service) Targets(_ context.Context, r meshapi.TargetsRequestObject) (meshapi.TargetsResponseObject, error) {
	only := ""
	if r.Body != nil && r.Body.AppID != "" {
		only = r.Body.AppID
		if err := mesh.ValidateName("appId", only); err != nil {
			return nil, err
		}
	}
	answer := meshapi.Targets200JSONResponse{Directory: directoryState(s.cfg.Client.Directory().State()), Targets: []meshapi.Target{}}
	for _, t := range s.cfg.Client.Targets() {
		if only == "" || t.AppID == only {
			answer.Targets = append(answer.Targets, target(t))
		}
	}
	return answer, nil
}

func directoryState(s mesh.DirectoryState) meshapi.DirectoryState {
	state := meshapi.DirectoryState{Version: int64(s.Version), MappingsVersion: s.MappingsVersion, Endpoints: s.Endpoints}
	if s.Read {
		age := s.Age.Seconds()
		state.AgeSeconds = &age
	}
	return state
}

func target(t mesh.TargetState) meshapi.Target {
	wire := meshapi.Target{AppID: t.AppID, Panic: t.Panic, Picks: int64(t.Picks), Instances: make([]meshapi.TargetInstance, len(t.Instances)),
		Retries: int64(t.Retries), RetriesRefused: int64(t.RetriesRefused), Hedges: int64(t.Hedges), HedgesWon: int64(t.HedgesWon),
		Breaker: string(t.Breaker), BreakerOpened: int64(t.BreakerOpened), Calls: t.Calls, Waiting: t.Waiting, Overloaded: int64(t.Overloaded)}
	for i, in := range t.Instances {
		wire.Instances[i] = meshapi.TargetInstance{
			InstanceID: in.InstanceID, Zone: in.Zone, Status: string(in.Status), State: in.State(), Picks: int64(in.Picks),
			InFlight: in.InFlight, LatencyMs: milliseconds(in.Latency), FailureShare: in.FailureShare, Share: in.Share,
			EjectedForMs: milliseconds(in.EjectedFor), LastEjectionMs: milliseconds(in.LastEjection),
		}
	}
	return wire
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
