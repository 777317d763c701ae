package mesh

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/mesh/meshapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// GetMappings is POST /mesh/mappings.
func (s *Service) GetMappings(ctx context.Context, _ meshapi.GetMappingsRequestObject) (meshapi.GetMappingsResponseObject, error) {
	m, err := s.cfg.Registry.Mappings(ctx)
	if err != nil {
		return nil, err
	}
	return meshapi.GetMappings200JSONResponse(mapped(m)), nil
}

// SetServiceMappings is POST /orchestrator/service-mappings/set.
func (s *Service) SetServiceMappings(ctx context.Context, r meshapi.SetServiceMappingsRequestObject) (meshapi.SetServiceMappingsResponseObject, error) {
	if r.Body.Mappings == nil {
		return nil, problem.New(problem.MissingMember, "member mappings is required; {} puts every service on the default app-id").
			At("mappings")
	}
	if err := validSource(r.Body.SourceInstanceID); err != nil {
		return nil, err
	}
	if err := s.restore(ctx); err != nil {
		return nil, err
	}
	m, err := s.cfg.Registry.SetMappings(ctx, r.Body.Mappings, r.Body.SourceInstanceID)
	if err != nil {
		return nil, err
	}
	return meshapi.SetServiceMappings200JSONResponse(mapped(m)), nil
}

// CurrentConfig is POST /orchestrator/config/current.
func (s *Service) CurrentConfig(ctx context.Context, _ meshapi.CurrentConfigRequestObject) (meshapi.CurrentConfigResponseObject, error) {
	c, err := s.cfg.Registry.CurrentConfig(ctx)
	if err != nil {
		return nil, err
	}
	return meshapi.CurrentConfig200JSONResponse(configured(c)), nil
}

// SetConfig is POST /orchestrator/config/set.
func (s *Service) SetConfig(ctx context.Context, r meshapi.SetConfigRequestObject) (meshapi.SetConfigResponseObject, error) {
	in := r.Body
	switch {
	case in.ExpectedVersion == nil:
		return nil, problem.Missing("expectedVersion")
	case *in.ExpectedVersion < 0:
		return nil, problem.Invalid("expectedVersion", "is %d, and versions count from 0, for none", *in.ExpectedVersion)
	}
	if err := validSource(in.SourceInstanceID); err != nil {
		return nil, err
	}
	settings := jsontext.Value(in.Settings)
	if settings.Kind() == jsontext.KindNull {
		settings = nil
	}
	if len(settings) > 0 && settings.Kind() != jsontext.KindBeginObject {
		return nil, problem.Invalid("settings", "has to be a JSON object")
	}
	if err := s.restore(ctx); err != nil {
		return nil, err
	}
	c, err := s.cfg.Registry.SetConfig(ctx, *in.ExpectedVersion, mesh.Config{Mappings: in.Mappings,
		DefaultAppID: in.DefaultAppID, Settings: settings, SourceInstanceID: in.SourceInstanceID})
	if err != nil {
		return nil, err
	}
	return meshapi.SetConfig200JSONResponse(configured(c)), nil
}

// maxHistory is how many versions one answer may hold.
const maxHistory = 100

// ConfigHistory is POST /orchestrator/config/history.
func (s *Service) ConfigHistory(ctx context.Context, r meshapi.ConfigHistoryRequestObject) (meshapi.ConfigHistoryResponseObject, error) {
	limit := 20
	if r.Body != nil && r.Body.Limit != nil {
		limit = *r.Body.Limit
	}
	if limit < 1 || limit > maxHistory {
		return nil, problem.Invalid("limit", "is %d, and has to be 1 to %d", limit, maxHistory)
	}
	history, err := s.cfg.Registry.ConfigHistory(ctx, limit)
	if err != nil {
		return nil, err
	}
	versions := make([]mesh.Config, len(history))
	for i, c := range history {
		versions[i] = configured(c)
	}
	return meshapi.ConfigHistory200JSONResponse{Versions: versions}, nil
}

// RollbackConfig is POST /orchestrator/config/rollback.
func (s *Service) RollbackConfig(ctx context.Context, r meshapi.RollbackConfigRequestObject) (meshapi.RollbackConfigResponseObject, error) {
	switch {
	case r.Body.Version == 0:
		return nil, problem.Missing("version")
	case r.Body.Version < 0:
		return nil, problem.Invalid("version", "is %d, and versions count from 1", r.Body.Version)
	}
	expected := int64(mesh.AnyVersion)
	if e := r.Body.ExpectedVersion; e != nil {
		if expected = *e; expected < 0 {
			return nil, problem.Invalid("expectedVersion", "is %d, and versions count from 0, for none", expected)
		}
	}
	if err := validSource(r.Body.SourceInstanceID); err != nil {
		return nil, err
	}
	if err := s.restore(ctx); err != nil {
		return nil, err
	}
	c, err := s.cfg.Registry.RollbackConfig(ctx, r.Body.Version, expected, r.Body.SourceInstanceID)
	if err != nil {
		return nil, err
	}
	return meshapi.RollbackConfig200JSONResponse(configured(c)), nil
}

// validSource accepts the id of an instance, or none.
func validSource(id string) error {
	if id == "" {
		return nil
	}
	return mesh.ValidateName("sourceInstanceId", id)
}

// mapped and configured make sure that mappings are an object on the wire, also empty ones.
func mapped(m mesh.Mappings) mesh.Mappings {
	if m.Services == nil {
		m.Services = map[string]string{}
	}
	return m
}

func configured(c mesh.Config) mesh.Config {
	if c.Mappings == nil {
		c.Mappings = map[string]string{}
	}
	return c
}
