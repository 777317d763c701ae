package events

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/events/eventsapi"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
)

// appendEvents is POST /events/append.
func (s *Service) appendEvents(ctx context.Context, r *eventsapi.AppendEventsRequest) (*eventsapi.AppendEventsResponse, error) {
	if len(r.Streams) == 0 {
		return nil, problem.Missing("streams")
	}
	appends := make([]eventstore.Append, len(r.Streams))
	for i := range r.Streams {
		place := fmt.Sprintf("streams[%d]", i)
		a, err := appendOf(ctx, place, &r.Streams[i])
		if err != nil {
			return nil, err
		}
		if err := s.mayChange(ctx, a.Stream.Category); err != nil {
			return nil, err
		}
		appends[i] = a
	}
	appended, err := s.cfg.Log.AppendAll(ctx, appends...)
	if err != nil {
		return nil, err
	}
	answer := &eventsapi.AppendEventsResponse{Streams: make([]eventsapi.StreamAppended, len(appended))}
	for i, a := range appended {
		answer.Streams[i] = eventsapi.StreamAppended{Category: a.Stream.Category, ID: a.Stream.ID, Version: a.Version, Position: a.Position, Repeated: a.Repeated}
	}
	return answer, nil
}

func appendOf(ctx context.Context, place string, in *eventsapi.StreamAppend) (eventstore.Append, error) {
	out := eventstore.Append{Stream: eventstore.StreamID{Category: in.Category, ID: in.ID}}
	if err := problem.Require(place+".category", in.Category, place+".id", in.ID); err != nil {
		return out, err
	}
	if len(in.Events) == 0 {
		return out, problem.Missing(place + ".events")
	}
	var err error
	if out.Expected, err = expected(place+".expected", in.Expected); err != nil {
		return out, err
	}
	out.Events = make([]eventstore.Event, len(in.Events))
	for i := range in.Events {
		e := &in.Events[i]
		at := fmt.Sprintf("%s.events[%d]", place, i)
		if e.Type == "" {
			return out, problem.Missing(at + ".type")
		}
		if len(e.Data) == 0 {
			return out, problem.New(problem.MissingMember, "member %s.data is required and is missing", at).At(at + ".data")
		}
		personal := eventstore.Personal{Subject: e.Personal.Subject}
		for _, member := range e.Personal.Members {
			personal.Members = append(personal.Members, jsontext.Pointer(member))
		}
		if personal.Subject != "" && len(personal.Members) == 0 {
			return out, problem.Missing(at + ".personal.members")
		}
		out.Events[i] = eventstore.Event{Personal: personal, ID: e.ID, Type: e.Type, Schema: e.Schema, Data: jsontext.Value(e.Data), Metadata: eventstore.Metadata{
			CausationID: e.Metadata.CausationID, CorrelationID: e.Metadata.CorrelationID, Trace: e.Metadata.Trace,
			Actor: cmp.Or(e.Metadata.Actor, guard.Caller(ctx)),
		}}
	}
	return out, nil
}

// expected reads which version a stream must have.
func expected(member string, in json.RawMessage) (eventstore.Expected, error) {
	switch string(in) {
	case "", "null", `"any"`:
		return eventstore.Any, nil
	case `"none"`:
		return eventstore.NoStream, nil
	}
	var version int64
	if err := json.Unmarshal(in, &version); err != nil || version < 0 {
		return 0, problem.Invalid(member, `is %.64s, and has to be a version of the stream as a number, "none" or "any"`, in)
	}
	return eventstore.Expected(version), nil
}
