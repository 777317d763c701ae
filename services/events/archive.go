package events

import (
	"context"
	"errors"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/events/eventsapi"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
)

// closeStream is POST /events/close.
func (s *Service) closeStream(ctx context.Context, r *eventsapi.CloseStreamRequest) (*eventsapi.StreamAppended, error) {
	if err := problem.Require("category", r.Category, "id", r.ID); err != nil {
		return nil, err
	}
	if err := s.mayChange(ctx, r.Category); err != nil {
		return nil, err
	}
	version, err := expected("expected", r.Expected)
	if err != nil {
		return nil, err
	}
	if actor := guard.Caller(ctx); actor != "" {
		ctx = eventstore.WithMetadata(ctx, eventstore.Metadata{Actor: actor})
	}
	a, err := s.cfg.Log.CloseStream(ctx, eventstore.StreamID{Category: r.Category, ID: r.ID}, version)
	if err != nil {
		return nil, err
	}
	return &eventsapi.StreamAppended{Category: a.Stream.Category, ID: a.Stream.ID, Version: a.Version, Position: a.Position, Repeated: a.Repeated}, nil
}

// archiveStream is POST /events/archive.
func (s *Service) archiveStream(ctx context.Context, r *eventsapi.ArchiveStreamRequest) (*eventsapi.ArchiveStreamResponse, error) {
	if err := problem.Require("category", r.Category, "id", r.ID); err != nil {
		return nil, err
	}
	if err := s.mayChange(ctx, r.Category); err != nil {
		return nil, err
	}
	moved, err := s.cfg.Log.Archive(ctx, eventstore.StreamID{Category: r.Category, ID: r.ID})
	if errors.Is(err, state.ErrConflict) {
		return nil, problem.New(problem.Conflict, "stream %s/%s is not closed: close it first, then archive it", r.Category, r.ID).Because(err)
	}
	if err != nil {
		return nil, err
	}
	return &eventsapi.ArchiveStreamResponse{Moved: moved}, nil
}
