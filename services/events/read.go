package events

import (
	"context"
	"iter"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/events/eventsapi"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
)

const (
	maxPage     = 1000
	defaultPage = 100
	pageBytes   = 8 << 20 // of data in one answer, beyond which a page ends
)

// readEvents is POST /events/read.
func (s *Service) readEvents(ctx context.Context, r *eventsapi.ReadEventsRequest) (*eventsapi.ReadEventsResponse, error) {
	if err := s.mayRead(ctx, r.Category, r.ID); err != nil {
		return nil, err
	}
	limit, err := pageOf(r.Limit)
	if err != nil {
		return nil, err
	}
	if r.From < 0 {
		return nil, problem.Invalid("from", "is %d, and has to be 0 or above", r.From)
	}
	answer := &eventsapi.ReadEventsResponse{Events: []eventsapi.RecordedEvent{}}
	size := 0
	for e, err := range s.read(ctx, r.Category, r.ID, eventstore.ReadOptions{From: r.From, Backward: r.Backward, Limit: limit + 1}) {
		if err != nil {
			return nil, err
		}
		if len(answer.Events) == limit || size > pageBytes {
			answer.Next = e.Position
			if r.ID != "" {
				answer.Next = e.Version
			}
			break
		}
		size += len(e.Data)
		answer.Events = append(answer.Events, recorded(&e))
	}
	return answer, nil
}

// mayRead refuses a part of the log that cannot be, or that the caller may not read.
func (s *Service) mayRead(ctx context.Context, category, id string) error {
	if id != "" && category == "" {
		return problem.New(problem.MissingMember, "member category is required beside id, and is missing").At("category")
	}
	return s.may(ctx, guard.Read, category)
}

func (s *Service) read(ctx context.Context, category, id string, o eventstore.ReadOptions) iter.Seq2[eventstore.Recorded, error] {
	switch {
	case id != "":
		return s.cfg.Log.ReadStream(ctx, eventstore.StreamID{Category: category, ID: id}, o)
	case category != "":
		return s.cfg.Log.ReadCategory(ctx, category, o)
	default:
		return s.cfg.Log.ReadAll(ctx, o)
	}
}

// pageOf is how much is asked for.
func pageOf(limit *int) (int, error) {
	switch {
	case limit == nil:
		return defaultPage, nil
	case *limit < 1 || *limit > maxPage:
		return 0, problem.Invalid("limit", "is %d, and has to be 1 to %d", *limit, maxPage)
	default:
		return *limit, nil
	}
}

// recorded is an event as callers see it.
func recorded(e *eventstore.Recorded) eventsapi.RecordedEvent {
	erased := make([]string, len(e.Erased))
	for i, at := range e.Erased {
		erased[i] = string(at)
	}
	return eventsapi.RecordedEvent{
		Erased:   erased,
		Position: e.Position, Category: e.Stream.Category, Stream: e.Stream.ID, Version: e.Version, ID: e.ID, Type: e.Type, Schema: e.Schema,
		Data: []byte(e.Data), RecordedAt: e.RecordedAt, Metadata: eventsapi.EventMetadata{
			CausationID: e.Metadata.CausationID, CorrelationID: e.Metadata.CorrelationID, Trace: e.Metadata.Trace, Actor: e.Metadata.Actor,
		},
	}
}

// listStreams is POST /events/streams.
func (s *Service) listStreams(ctx context.Context, r *eventsapi.ListStreamsRequest) (*eventsapi.ListStreamsResponse, error) {
	if err := problem.Require("category", r.Category); err != nil {
		return nil, err
	}
	if err := s.mayRead(ctx, r.Category, ""); err != nil {
		return nil, err
	}
	limit, err := pageOf(r.Limit)
	if err != nil {
		return nil, err
	}
	found, err := s.cfg.Log.Streams(ctx, r.Category, r.After, limit+1)
	if err != nil {
		return nil, err
	}
	answer := &eventsapi.ListStreamsResponse{Streams: []eventsapi.StreamVersion{}}
	for i, v := range found {
		if i == limit {
			answer.Next = found[i-1].Stream.ID
			break
		}
		answer.Streams = append(answer.Streams, eventsapi.StreamVersion{ID: v.Stream.ID, Version: v.Version})
	}
	return answer, nil
}
