package events

import (
	"context"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/events/eventsapi"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
)

// snapshotStream is POST /events/snapshot.
func (s *Service) snapshotStream(ctx context.Context, r *eventsapi.SnapshotRequest) (*eventsapi.SnapshotResponse, error) {
	if err := problem.Require("category", r.Category, "id", r.ID); err != nil {
		return nil, err
	}
	stream := eventstore.StreamID{Category: r.Category, ID: r.ID}
	if len(r.Data) == 0 {
		if err := s.may(ctx, guard.Read, r.Category); err != nil {
			return nil, err
		}
		snapshot, found, err := s.cfg.Log.LoadSnapshot(ctx, stream, r.Schema)
		if err != nil || !found {
			return &eventsapi.SnapshotResponse{}, err
		}
		return &eventsapi.SnapshotResponse{Version: snapshot.Version, Data: snapshot.Data}, nil
	}
	if err := s.mayChange(ctx, r.Category); err != nil {
		return nil, err
	}
	if r.Version < 1 {
		return nil, problem.Invalid("version", "is %d, and has to be the version of the stream that data is the state at", r.Version)
	}
	if err := s.cfg.Log.SaveSnapshot(ctx, stream, r.Schema, r.Version, []byte(r.Data), r.Subject); err != nil {
		return nil, err
	}
	return &eventsapi.SnapshotResponse{Version: r.Version}, nil
}
