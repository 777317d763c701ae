package permissions

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/permissions/permissionsapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// Mount registers /permissions/*.
func (s *Service) Mount(mux *http.ServeMux) error {
	permissionsapi.HandlerWithOptions(endpoints{s, s.operations()}, permissionsapi.StdHTTPServerOptions{
		BaseRouter:       mux,
		ErrorHandlerFunc: jsonbody.WriteDecodeError,
	})
	return nil
}

func (s *Service) operations() jsonbody.Operations {
	return jsonbody.Operations{Limits: jsonbody.Limits{MaxBytes: s.cfg.MaxBodyBytes}, Timeout: s.cfg.Timeout, Problem: permissionsProblem}
}

// endpoints are the service's operations as handlers.
type endpoints struct {
	*Service
	operations jsonbody.Operations
}

var _ permissionsapi.ServerInterface = endpoints{}

func answer[Q, A any](e endpoints, w http.ResponseWriter, r *http.Request, do func(ctx context.Context, request *Q) (*A, error)) {
	jsonbody.Answer(e.operations, w, r, do)
}

// permissionsProblem is an error of the stores or the bus as callers see it. Problems stay as they are.
func permissionsProblem(err error) error {
	if _, ok := errors.AsType[*problem.Problem](err); ok {
		return err
	}
	switch {
	case errors.Is(err, state.ErrConflict):
		return problem.New(problem.Conflict, "others change the same at the same time; try again").Because(err)
	case errors.Is(err, state.ErrOutcomeUnknown):
		return problem.New(problem.OutcomeUnknown, "a store did not answer in time: it may or may not have been done").Because(err)
	case errors.Is(err, state.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Unavailable, "a store or the bus is away; do it again").Because(err)
	default:
		return err
	}
}

// RegisterService is POST /permissions/services/register.
func (e endpoints) RegisterService(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.registerService)
}

// RemoveService is POST /permissions/services/remove.
func (e endpoints) RemoveService(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.removeService)
}

// ListServices is POST /permissions/services/list.
func (e endpoints) ListServices(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.listServices)
}

// GetCapabilities is POST /permissions/capabilities/get.
func (e endpoints) GetCapabilities(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.getCapabilities)
}

// EndSessions is POST /permissions/sessions/end.
func (e endpoints) EndSessions(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.endSessions)
}

// maxEnded is how many sessions end by one request.
const maxEnded = 1000

func (s *Service) endSessions(ctx context.Context, r *permissionsapi.EndSessionsRequest) (*permissionsapi.EndSessionsResponse, error) {
	switch {
	case r.SessionIds == nil:
		return nil, problem.Missing("sessionIds")
	case len(r.SessionIds) > maxEnded:
		return nil, problem.Invalid("sessionIds", "names %d sessions, at most %d are allowed", len(r.SessionIds), maxEnded)
	}
	err := s.end(ctx, r.AccountID, r.SessionIds)
	if errors.Is(err, state.ErrConflict) { // to a saga a conflict would be the last word
		err = problem.New(problem.Unavailable, "others change the same sessions at the same time; try again").Because(err)
	}
	return &permissionsapi.EndSessionsResponse{Ended: len(r.SessionIds)}, err
}

func (s *Service) registerService(ctx context.Context, r *permissionsapi.RegisterServiceRequest) (*permissionsapi.RegisterServiceResponse, error) {
	v := registration{AppID: r.AppID, Version: r.Version, At: s.cfg.Now().UTC()}
	if r.Endpoints != nil {
		v.Endpoints = []events.PermissionsEndpoint{}
	}
	for _, endpoint := range r.Endpoints {
		own := events.PermissionsEndpoint{Method: endpoint.Method, Path: endpoint.Path}
		for _, p := range endpoint.Permissions {
			own.Permissions = append(own.Permissions, events.PermissionsRequirement{Role: p.Role, States: p.States})
		}
		v.Endpoints = append(v.Endpoints, own)
	}
	sessions, err := s.register(ctx, r.ServiceName, v)
	return &permissionsapi.RegisterServiceResponse{Sessions: sessions}, err
}

func (s *Service) removeService(ctx context.Context, r *permissionsapi.RemoveServiceRequest) (*permissionsapi.RemoveServiceResponse, error) {
	if err := problem.Require("serviceName", r.ServiceName); err != nil {
		return nil, err
	}
	removed, err := s.remove(ctx, r.ServiceName)
	if err != nil {
		return nil, err
	}
	sessions, err := s.recomputeAll(ctx)
	return &permissionsapi.RemoveServiceResponse{Removed: removed, Sessions: sessions}, err
}

func (s *Service) listServices(ctx context.Context, _ *struct{}) (*permissionsapi.ListServicesResponse, error) {
	c, _, err := s.catalogue(ctx)
	if err != nil {
		return nil, err
	}
	listed := &permissionsapi.ListServicesResponse{Services: []permissionsapi.RegisterServiceRequest{}}
	for _, name := range slices.Sorted(maps.Keys(c.Services)) {
		r := c.Services[name]
		v := permissionsapi.RegisterServiceRequest{ServiceName: name, AppID: r.AppID, Version: r.Version, Endpoints: []permissionsapi.RegisteredEndpoint{}}
		for _, endpoint := range r.Endpoints {
			own := permissionsapi.RegisteredEndpoint{Method: endpoint.Method, Path: endpoint.Path, Permissions: []permissionsapi.Requirement{}}
			for _, p := range endpoint.Permissions {
				own.Permissions = append(own.Permissions, permissionsapi.Requirement{Role: p.Role, States: p.States})
			}
			v.Endpoints = append(v.Endpoints, own)
		}
		listed.Services = append(listed.Services, v)
	}
	return listed, nil
}

func (s *Service) getCapabilities(ctx context.Context, r *permissionsapi.GetCapabilitiesRequest) (*permissionsapi.Capabilities, error) {
	if err := problem.Require("sessionId", r.SessionID); err != nil {
		return nil, err
	}
	if len(r.SessionID) > maxNameBytes {
		return nil, problem.Invalid("sessionId", "has %d bytes, at most %d are allowed", len(r.SessionID), maxNameBytes)
	}
	store, err := state.Open[entry](ctx, s.cfg.Factory, SessionStore)
	if err != nil {
		return nil, err
	}
	kept, err := store.GetWithETag(ctx, sessionKey(r.SessionID))
	if err = absent(err); err != nil {
		return nil, err
	}
	e := &kept.Value
	if kept.ETag == "" || e.Ended {
		return nil, problem.New(problem.NotFound, "member sessionId: there is no session %.64q; it has ended, or nothing was heard of it", r.SessionID).At("sessionId")
	}
	c, _, err := s.catalogue(ctx)
	if err != nil {
		return nil, err
	}
	return &permissionsapi.Capabilities{SessionID: r.SessionID, Version: c.Version + e.Version, Capabilities: c.allows(e)}, nil
}
