package mesh

import (
	"cmp"
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/mesh/meshapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// RegisterEndpoint is POST /mesh/register.
func (s *Service) RegisterEndpoint(ctx context.Context, r meshapi.RegisterEndpointRequestObject) (meshapi.RegisterEndpointResponseObject, error) {
	in := r.Body
	e := mesh.Endpoint{
		AppID: in.AppID, InstanceID: cmp.Or(in.InstanceID, uuid.NewString()), Host: in.Host, Port: in.Port,
		ExternalHost: in.ExternalHost, Status: mesh.Status(in.Status), MaxConnections: in.MaxConnections, Services: in.Services,
		Zone: in.Zone,
	}
	if in.Port == 0 && in.Host != "" && in.AppID != "" {
		return nil, problem.Missing("port")
	}
	if err := e.Validate(); err != nil {
		return nil, err
	}
	if err := s.checkHost(ctx, "host", e.Host); err != nil {
		return nil, err
	}
	if err := s.cfg.Registry.Register(ctx, e); err != nil {
		return nil, err
	}
	return meshapi.RegisterEndpoint200JSONResponse{Success: true, InstanceID: e.InstanceID}, nil
}

// Heartbeat is POST /mesh/heartbeat.
func (s *Service) Heartbeat(ctx context.Context, r meshapi.HeartbeatRequestObject) (meshapi.HeartbeatResponseObject, error) {
	in := r.Body
	e := mesh.Endpoint{
		AppID: in.AppID, InstanceID: in.InstanceID, Host: in.Host, Port: in.Port, ExternalHost: in.ExternalHost,
		Status: mesh.Status(in.Status), LoadPercent: in.LoadPercent, MaxConnections: in.MaxConnections,
		CurrentConnections: in.CurrentConnections, Services: in.Services, Zone: in.Zone,
	}
	if err := validIDs(e.AppID, e.InstanceID); err != nil {
		return nil, err
	}
	if (e.Host == "") != (e.Port == 0) {
		member := "port"
		if e.Host == "" {
			member = "host"
		}
		return nil, problem.New(problem.MissingMember, "member %s is missing: host and port go together", member).At(member)
	}
	if err := s.checkHost(ctx, "host", e.Host); err != nil {
		return nil, err
	}
	if err := s.cfg.Registry.Heartbeat(ctx, e); err != nil {
		return nil, err
	}
	return meshapi.Heartbeat200JSONResponse{Success: true}, nil
}

// DeregisterEndpoint is POST /mesh/deregister.
func (s *Service) DeregisterEndpoint(ctx context.Context, r meshapi.DeregisterEndpointRequestObject) (meshapi.DeregisterEndpointResponseObject, error) {
	if err := validIDs(r.Body.AppID, r.Body.InstanceID); err != nil {
		return nil, err
	}
	found, err := s.cfg.Registry.Deregister(ctx, r.Body.AppID, r.Body.InstanceID)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, problem.New(problem.NotFound, "member instanceId: app-id %s has no instance %s; it left, went quiet and was forgotten, or is being registered anew",
			r.Body.AppID, r.Body.InstanceID).At("instanceId")
	}
	return meshapi.DeregisterEndpoint200JSONResponse{Success: true}, nil
}

func validIDs(appID, instanceID string) error {
	if err := mesh.ValidateName("appId", appID); err != nil {
		return err
	}
	return mesh.ValidateName("instanceId", instanceID)
}

// GetEndpoints is POST /mesh/endpoints/get.
func (s *Service) GetEndpoints(ctx context.Context, r meshapi.GetEndpointsRequestObject) (meshapi.GetEndpointsResponseObject, error) {
	endpoints, err := s.endpoints(ctx, r.Body)
	if err != nil {
		return nil, err
	}
	return meshapi.GetEndpoints200JSONResponse{Endpoints: endpoints}, nil
}

// GetServiceEndpoints is POST /orchestrator/service-endpoints.
func (s *Service) GetServiceEndpoints(ctx context.Context, r meshapi.GetServiceEndpointsRequestObject) (meshapi.GetServiceEndpointsResponseObject, error) {
	endpoints, err := s.endpoints(ctx, r.Body)
	if err != nil {
		return nil, err
	}
	return meshapi.GetServiceEndpoints200JSONResponse{Endpoints: endpoints}, nil
}

func (s *Service) endpoints(ctx context.Context, r *meshapi.GetEndpointsRequest) ([]mesh.Endpoint, error) {
	if err := mesh.ValidateName("appId", r.AppID); err != nil {
		return nil, err
	}
	endpoints, err := s.cfg.Registry.Endpoints(ctx, r.AppID, r.IncludeUnhealthy)
	return listed(endpoints), err
}

// ListEndpoints is POST /mesh/endpoints/list.
func (s *Service) ListEndpoints(ctx context.Context, r meshapi.ListEndpointsRequestObject) (meshapi.ListEndpointsResponseObject, error) {
	endpoints, err := s.cfg.Registry.List(ctx, r.Body != nil && r.Body.IncludeUnhealthy)
	if err != nil {
		return nil, err
	}
	return meshapi.ListEndpoints200JSONResponse{Endpoints: listed(endpoints)}, nil
}

// listed makes sure that lists are arrays on the wire, also empty ones.
func listed(endpoints []mesh.Endpoint) []mesh.Endpoint {
	if endpoints == nil {
		return []mesh.Endpoint{}
	}
	for i := range endpoints {
		if endpoints[i].Services == nil {
			endpoints[i].Services = []string{}
		}
	}
	return endpoints
}

// Route is POST /mesh/route.
func (s *Service) Route(_ context.Context, r meshapi.RouteRequestObject) (meshapi.RouteResponseObject, error) {
	if err := mesh.ValidateName("appId", r.Body.AppID); err != nil {
		return nil, err
	}
	e, err := s.cfg.Client.Route(r.Body.AppID)
	if err != nil {
		return nil, err
	}
	return meshapi.Route200JSONResponse{Endpoint: listed([]mesh.Endpoint{*e})[0]}, nil
}

// MeshHealth is POST /mesh/health.
func (s *Service) MeshHealth(ctx context.Context, _ meshapi.MeshHealthRequestObject) (meshapi.MeshHealthResponseObject, error) {
	endpoints, err := s.cfg.Registry.List(ctx, true)
	if err != nil {
		return nil, err
	}
	apps := map[string]*meshapi.AppHealth{}
	for _, e := range endpoints {
		if apps[e.AppID] == nil {
			apps[e.AppID] = &meshapi.AppHealth{AppID: e.AppID}
		}
		count(apps[e.AppID], e.Status)
	}
	answer := meshapi.MeshHealth200JSONResponse{Status: meshapi.Healthy, AppIds: []meshapi.AppHealth{}}
	for _, app := range apps {
		answer.AppIds = append(answer.AppIds, *app)
		if app.Healthy == 0 {
			answer.Status = meshapi.Degraded
		}
	}
	slices.SortFunc(answer.AppIds, func(a, b meshapi.AppHealth) int { return cmp.Compare(a.AppID, b.AppID) })
	return answer, nil
}

func count(app *meshapi.AppHealth, status mesh.Status) {
	switch status {
	case mesh.StatusHealthy:
		app.Healthy++
	case mesh.StatusDegraded:
		app.Degraded++
	case mesh.StatusShuttingDown:
		app.ShuttingDown++
	case mesh.StatusUnavailable:
		app.Unavailable++
	}
}
