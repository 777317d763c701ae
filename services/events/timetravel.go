package events

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/events/eventsapi"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
)

// An Aggregate shows the state that a stream's events lead to. Those of package eventstore do.
type Aggregate interface {
	// StateAt is the state of a stream, by its id, at a version that it has had. Version 0 is the state before all events.
	StateAt(ctx context.Context, id string, version int64) (jsontext.Value, error)
}

// streamAt is POST /events/at.
func (s *Service) streamAt(ctx context.Context, r *eventsapi.StreamAtRequest) (*eventsapi.StreamAtResponse, error) {
	if err := problem.Require("category", r.Category, "id", r.ID); err != nil {
		return nil, err
	}
	if err := s.may(ctx, guard.Read, r.Category); err != nil {
		return nil, err
	}
	stream := eventstore.StreamID{Category: r.Category, ID: r.ID}
	version, err := s.versionOf(ctx, stream, "at", r.At)
	if err != nil {
		return nil, err
	}
	answer := &eventsapi.StreamAtResponse{Version: version}
	if version > 0 {
		for e, err := range s.cfg.Log.ReadStream(ctx, stream, eventstore.ReadOptions{From: version, Limit: 1}) {
			if err != nil {
				return nil, err
			}
			last := recorded(&e)
			answer.Last = &last
		}
	}
	if aggregate := s.cfg.Aggregates[r.Category]; aggregate != nil {
		then, err := aggregate.StateAt(ctx, r.ID, version)
		if err != nil {
			return nil, err
		}
		answer.State = []byte(then)
	}
	return answer, nil
}

// versionOf is the version that a stream has at a moment.
func (s *Service) versionOf(ctx context.Context, stream eventstore.StreamID, member string, m eventsapi.Moment) (int64, error) {
	if m.Version != nil && m.Time != nil {
		return 0, problem.Invalid(member, "has version and time: give one of them")
	}
	if m.Time != nil {
		return s.cfg.Log.VersionAt(ctx, stream, *m.Time)
	}
	var now int64
	for e, err := range s.cfg.Log.ReadStream(ctx, stream, eventstore.ReadOptions{Backward: true, Limit: 1}) {
		if err != nil {
			return 0, err
		}
		now = e.Version
	}
	if m.Version == nil {
		return now, nil
	}
	if now == 0 && *m.Version > 0 {
		return 0, problem.Invalid(member+".version", "is %d, and there is no stream %s", *m.Version, stream)
	}
	if *m.Version < 0 || *m.Version > now {
		return 0, problem.Invalid(member+".version", "is %d, and stream %s has the versions 0 to %d", *m.Version, stream, now)
	}
	return *m.Version, nil
}

// diffStream is POST /events/diff.
func (s *Service) diffStream(ctx context.Context, r *eventsapi.DiffStreamRequest) (*eventsapi.DiffStreamResponse, error) {
	if err := problem.Require("category", r.Category, "id", r.ID); err != nil {
		return nil, err
	}
	if err := s.may(ctx, guard.Read, r.Category); err != nil {
		return nil, err
	}
	limit, err := pageOf(r.Limit)
	if err != nil {
		return nil, err
	}
	stream := eventstore.StreamID{Category: r.Category, ID: r.ID}
	from, err := s.versionOf(ctx, stream, "from", r.From)
	if err != nil {
		return nil, err
	}
	to, err := s.versionOf(ctx, stream, "to", r.To)
	if err != nil {
		return nil, err
	}
	if from > to {
		return nil, problem.Invalid("to", "is version %d, and from is version %d: give the earlier one first", to, from)
	}
	answer := &eventsapi.DiffStreamResponse{From: from, To: to, Events: []eventsapi.RecordedEvent{}}
	if from < to {
		page, err := s.readEvents(ctx, &eventsapi.ReadEventsRequest{Category: r.Category, ID: r.ID, From: from + 1, Limit: new(min(limit, int(to-from)))})
		if err != nil {
			return nil, err
		}
		answer.Events = page.Events
		if next := from + 1 + int64(len(page.Events)); next <= to {
			answer.Next = next
		}
	}
	if aggregate := s.cfg.Aggregates[r.Category]; aggregate != nil {
		if answer.Changes, err = changes(ctx, aggregate, r.ID, from, to); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

func changes(ctx context.Context, aggregate Aggregate, id string, from, to int64) (*[]eventsapi.StateChange, error) {
	before, err := aggregate.StateAt(ctx, id, from)
	if err != nil {
		return nil, err
	}
	after, err := aggregate.StateAt(ctx, id, to)
	if err != nil {
		return nil, err
	}
	found, err := eventstore.Compare(before, after)
	if err != nil {
		return nil, err
	}
	all := make([]eventsapi.StateChange, len(found))
	for i, c := range found {
		all[i] = eventsapi.StateChange{Path: string(c.Path), Before: []byte(c.Before), After: []byte(c.After)}
	}
	return &all, nil
}
