package events

import (
	"context"

	"github.com/bannou-mesh/bannou/services/events/eventsapi"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
)

// eraseSubject is POST /events/erase. Nothing of a subject is logged: it may be a name.
func (s *Service) eraseSubject(ctx context.Context, r *eventsapi.EraseSubjectRequest) (*eventsapi.EraseSubjectResponse, error) {
	if err := problem.Require("subject", r.Subject); err != nil {
		return nil, err
	}
	if err := s.may(ctx, guard.Write, ""); err != nil { // a subject may be in any category
		return nil, err
	}
	if s.internal(r.Subject) {
		return nil, problem.New(problem.Forbidden, "member subject: a stream of a service's own category is erased by the service that keeps it").At("subject")
	}
	found, err := s.cfg.Log.Erase(ctx, r.Subject)
	if err != nil {
		return nil, err
	}
	return &eventsapi.EraseSubjectResponse{Erased: found}, nil
}

// rewrapKeys is POST /events/rewrap.
func (s *Service) rewrapKeys(ctx context.Context, _ *eventsapi.RewrapRequest) (*eventsapi.RewrapResponse, error) {
	if err := s.may(ctx, guard.Write, ""); err != nil {
		return nil, err
	}
	n, err := s.cfg.Log.Rewrap(ctx)
	if err != nil {
		return nil, err
	}
	return &eventsapi.RewrapResponse{Keys: n}, nil
}
