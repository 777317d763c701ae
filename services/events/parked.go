package events

import (
	"context"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/events/eventsapi"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
)

// listParked is POST /events/parked.
func (s *Service) listParked(ctx context.Context, r *eventsapi.ListParkedRequest) (*eventsapi.ListParkedResponse, error) {
	if err := problem.Require("subscription", r.Subscription); err != nil {
		return nil, err
	}
	if err := s.may(ctx, guard.Read, ""); err != nil {
		return nil, err
	}
	parked, err := s.cfg.Log.Parked(ctx, r.Subscription)
	if err != nil {
		return nil, err
	}
	answer := &eventsapi.ListParkedResponse{Streams: make([]eventsapi.ParkedStream, len(parked))}
	for i, p := range parked {
		answer.Streams[i] = eventsapi.ParkedStream{
			Category: p.Stream.Category, ID: p.Stream.ID, Version: p.Version, ParkedAt: p.At, Released: p.Released,
			Failure: strings.ToValidUTF8(p.Failure, "\uFFFD"), // JSON has no other bytes, and who kept it may have cut it anywhere
		}
	}
	return answer, nil
}

// releaseParked is POST /events/release.
func (s *Service) releaseParked(ctx context.Context, r *eventsapi.ReleaseParkedRequest) (*eventsapi.ReleaseParkedResponse, error) {
	if err := problem.Require("subscription", r.Subscription, "category", r.Category, "id", r.ID); err != nil {
		return nil, err
	}
	if err := s.may(ctx, guard.Write, r.Category); err != nil {
		return nil, err
	}
	if err := s.cfg.Log.Unpark(ctx, r.Subscription, eventstore.StreamID{Category: r.Category, ID: r.ID}, r.Skip); err != nil {
		return nil, err
	}
	return &eventsapi.ReleaseParkedResponse{Released: true}, nil
}
