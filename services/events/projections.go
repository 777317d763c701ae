package events

import (
	"cmp"
	"context"
	"errors"
	"net/http"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
	"github.com/bannou-mesh/bannou/services/events/eventsapi"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
)

// ListProjections is POST /events/projections/list.
func (e endpoints) ListProjections(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.listProjections)
}

// PauseProjection is POST /events/projections/pause.
func (e endpoints) PauseProjection(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, func(ctx context.Context, request *eventsapi.ProjectionRequest) (*eventsapi.ProjectionsResponse, error) {
		return e.commandProjection(ctx, request.Name, func(s *projection.Set) (int, error) { return 0, s.Pause(ctx, request.Name) })
	})
}

// ResumeProjection is POST /events/projections/resume.
func (e endpoints) ResumeProjection(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, func(ctx context.Context, request *eventsapi.ProjectionRequest) (*eventsapi.ProjectionsResponse, error) {
		return e.commandProjection(ctx, request.Name, func(s *projection.Set) (int, error) { return 0, s.Resume(ctx, request.Name) })
	})
}

// RebuildProjection is POST /events/projections/rebuild.
func (e endpoints) RebuildProjection(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, func(ctx context.Context, request *eventsapi.RebuildProjectionRequest) (*eventsapi.ProjectionsResponse, error) {
		return e.commandProjection(ctx, request.Name, func(s *projection.Set) (int, error) {
			v, err := s.Rebuild(ctx, request.Name, request.Hold)
			return v.Number, err
		})
	})
}

// SwapProjection is POST /events/projections/swap.
func (e endpoints) SwapProjection(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, func(ctx context.Context, request *eventsapi.ProjectionVersionRequest) (*eventsapi.ProjectionsResponse, error) {
		return e.commandProjection(ctx, request.Name, func(s *projection.Set) (int, error) {
			return 0, s.Swap(ctx, request.Name, request.Version)
		})
	})
}

// DropProjection is POST /events/projections/drop.
func (e endpoints) DropProjection(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, func(ctx context.Context, request *eventsapi.ProjectionVersionRequest) (*eventsapi.ProjectionsResponse, error) {
		return e.commandProjection(ctx, request.Name, func(s *projection.Set) (int, error) {
			return 0, s.Drop(ctx, request.Name, request.Version)
		})
	})
}

func (s *Service) projections() *projection.Set { return cmp.Or(s.cfg.Projections, s.own) }

// listProjections leaves out those of categories that the caller may not read, unless one is asked for by its name.
func (s *Service) listProjections(ctx context.Context, r *eventsapi.ListProjectionsRequest) (*eventsapi.ProjectionsResponse, error) {
	list, err := s.projections().List(ctx, r.Name)
	if err != nil {
		return nil, projectionProblem(err)
	}
	response := &eventsapi.ProjectionsResponse{Versions: []eventsapi.ProjectionVersion{}}
	for _, status := range list {
		err := s.may(ctx, guard.Read, status.Category)
		switch {
		case err != nil && r.Name != "":
			return nil, err
		case err == nil:
			response.Versions = append(response.Versions, described(status))
		}
	}
	return response, nil
}

// commandProjection has something done to a projection by a caller who may write what it is made of, and answers with what comes of it.
func (s *Service) commandProjection(ctx context.Context, name string, do func(set *projection.Set) (version int, err error)) (*eventsapi.ProjectionsResponse, error) {
	if err := problem.Require("name", name); err != nil {
		return nil, err
	}
	set := s.projections()
	list, err := set.List(ctx, name)
	if err != nil {
		return nil, projectionProblem(err)
	}
	for _, status := range list {
		if err := s.may(ctx, guard.Write, status.Category); err != nil {
			return nil, err
		}
	}
	version, err := do(set)
	if err != nil {
		return nil, projectionProblem(err)
	}
	if list, err = set.List(ctx, name); err != nil {
		return nil, projectionProblem(err)
	}
	response := &eventsapi.ProjectionsResponse{Version: version}
	for _, status := range list {
		response.Versions = append(response.Versions, described(status))
	}
	return response, nil
}

// projectionProblem tells of a command that was refused.
func projectionProblem(err error) error {
	if errors.Is(err, state.ErrConflict) {
		return problem.New(problem.Conflict, "%s", reason(err)).Because(err)
	}
	return err
}

func described(r projection.Status) eventsapi.ProjectionVersion {
	return eventsapi.ProjectionVersion{
		Name: r.Projection, Version: r.Number, Revision: r.Revision, Category: r.Category, State: string(r.State), Live: r.Live, Inline: r.Inline,
		Position: r.Position, Total: r.Total, Lag: r.Lag, AgeSeconds: r.Age.Seconds(), Parked: r.Parked, Erased: r.Erased, Followed: r.Follower, BegunAt: r.Begun,
		Rate: r.Rate, RemainingSeconds: r.Remaining.Seconds(),
	}
}
