package sagas

import (
	"context"
	"slices"
	"strconv"

	"github.com/bannou-mesh/bannou/sagas"
	"github.com/bannou-mesh/bannou/services/problem"
	"github.com/bannou-mesh/bannou/services/sagas/sagasapi"
)

const (
	listPage   = 100
	maxHistory = 200
	maxNote    = 1000
	maxActor   = 255
)

// ListSagas is POST /sagas/list.
func (s *Service) ListSagas(ctx context.Context, r sagasapi.ListSagasRequestObject) (sagasapi.ListSagasResponseObject, error) {
	in := *r.Body
	answer := sagasapi.ListSagas200JSONResponse{Sagas: []sagasapi.SagaVersion{}, Instances: []sagasapi.SagaInstance{}}
	filter := sagas.Filter{Saga: in.Saga, State: in.State, Limit: listPage}
	if in.Limit != nil {
		if filter.Limit = *in.Limit; filter.Limit < 1 || filter.Limit > sagas.MaxList {
			return nil, problem.Invalid("limit", "is %d, and has to be 1 to %d", filter.Limit, sagas.MaxList)
		}
	}
	if in.Cursor != "" {
		var err error
		if filter.Before, err = strconv.ParseInt(in.Cursor, 10, 64); err != nil || filter.Before < 1 {
			return nil, problem.Invalid("cursor", "is %.64q, and has to be the cursor of a page before", in.Cursor)
		}
	}
	for _, status := range in.Status {
		if !status.Valid() {
			return nil, problem.Invalid("status", "has %.64q, which is no status", string(status))
		}
		filter.Status = append(filter.Status, sagas.Status(status))
	}
	if s.cfg.Engine != nil {
		for _, saga := range s.cfg.Engine.Sagas() {
			answer.Sagas = append(answer.Sagas, sagasapi.SagaVersion{Saga: saga.Name(), Version: saga.Version()})
		}
	}
	if in.Saga == "" {
		return answer, nil
	}
	engine, err := s.engine(in.Saga)
	if err != nil {
		return nil, err
	}
	list, err := engine.List(ctx, filter)
	if err != nil {
		return nil, err
	}
	for i := range list.Instances {
		answer.Instances = append(answer.Instances, instance(&list.Instances[i]))
	}
	if list.Cursor > 0 {
		answer.Cursor = strconv.FormatInt(list.Cursor, 10)
	}
	return answer, nil
}

// engine is that of the node, where it has one.
func (s *Service) engine(saga string) (*sagas.Engine, error) {
	if saga == "" {
		return nil, problem.Missing("saga")
	}
	if s.cfg.Engine == nil {
		return nil, problem.New(problem.NotFound, "member saga: this node has no saga %.64q: it has none", saga).At("saga")
	}
	return s.cfg.Engine, nil
}

// instance is an instance as callers see it.
func instance(i *sagas.Instance) sagasapi.SagaInstance {
	out := sagasapi.SagaInstance{
		Saga: i.Saga, Key: i.Key, Version: i.Definition, Status: sagasapi.SagaStatus(i.Status), State: i.State, Reason: i.Reason,
		StartedAt: i.Started, ChangedAt: i.Changed, Kept: len(i.Kept), Turns: i.Version,
	}
	if i.Parked != nil {
		out.Reason = i.Parked.Reason
	}
	if i.Due != nil {
		out.DueAt = *i.Due
	}
	if i.Work != nil && i.Work.Due != nil && (out.DueAt.IsZero() || i.Work.Due.Before(out.DueAt)) {
		out.DueAt = *i.Work.Due
	}
	for _, step := range slices.Backward(i.Owed) {
		out.Owed = append(out.Owed, step.State)
	}
	return out
}

// GetSaga is POST /sagas/get.
func (s *Service) GetSaga(ctx context.Context, r sagasapi.GetSagaRequestObject) (sagasapi.GetSagaResponseObject, error) {
	in := r.Body
	engine, err := s.engine(in.Saga)
	if err != nil {
		return nil, err
	}
	if in.Key == "" {
		return nil, problem.Missing("key")
	}
	i, err := engine.Get(ctx, in.Saga, in.Key)
	if err != nil {
		return nil, err
	}
	answer := sagasapi.GetSaga200JSONResponse{Instance: instance(&i), Data: i.Data}
	if !in.History {
		return answer, nil
	}
	for entry, err := range engine.History(ctx, in.Saga, in.Key) {
		if err != nil {
			return nil, err
		}
		answer.History = append(answer.History, turn(&entry))
		if len(answer.History) > maxHistory {
			answer.History = answer.History[1:]
		}
	}
	return answer, nil
}

func turn(e *sagas.Entry) sagasapi.SagaTurn {
	out := sagasapi.SagaTurn{
		At: e.Instance.Changed, Kind: string(e.Message.Kind), Message: e.Message.Topic, State: e.Instance.State, Status: sagasapi.SagaStatus(e.Instance.Status),
	}
	if out.Message == "" {
		out.Message = out.Kind
	}
	for _, p := range e.Publish {
		out.Published = append(out.Published, p.Topic)
	}
	return out
}

// RetrySaga is POST /sagas/retry.
func (s *Service) RetrySaga(ctx context.Context, r sagasapi.RetrySagaRequestObject) (sagasapi.RetrySagaResponseObject, error) {
	i, err := s.settle(ctx, r.Body, (*sagas.Engine).Retry, "retried")
	return sagasapi.RetrySaga200JSONResponse{Instance: i}, err
}

// CompensateSaga is POST /sagas/compensate.
func (s *Service) CompensateSaga(ctx context.Context, r sagasapi.CompensateSagaRequestObject) (sagasapi.CompensateSagaResponseObject, error) {
	i, err := s.settle(ctx, r.Body, (*sagas.Engine).Compensate, "compensated")
	return sagasapi.CompensateSaga200JSONResponse{Instance: i}, err
}

// CancelSaga is POST /sagas/cancel.
func (s *Service) CancelSaga(ctx context.Context, r sagasapi.CancelSagaRequestObject) (sagasapi.CancelSagaResponseObject, error) {
	i, err := s.settle(ctx, r.Body, (*sagas.Engine).Cancel, "cancelled")
	return sagasapi.CancelSaga200JSONResponse{Instance: i}, err
}

// settle asks an instance for something.
func (s *Service) settle(ctx context.Context, in *sagasapi.SettleSagaRequest,
	ask func(e *sagas.Engine, ctx context.Context, saga, key string, r sagas.Request) (sagas.Instance, error), done string) (sagasapi.SagaInstance, error) {
	engine, err := s.engine(in.Saga)
	if err != nil {
		return sagasapi.SagaInstance{}, err
	}
	switch {
	case in.Key == "":
		return sagasapi.SagaInstance{}, problem.Missing("key")
	case len(in.Note) > maxNote:
		return sagasapi.SagaInstance{}, problem.Invalid("note", "has %d bytes, at most %d are allowed", len(in.Note), maxNote)
	case len(in.Actor) > maxActor:
		return sagasapi.SagaInstance{}, problem.Invalid("actor", "has %d bytes, at most %d are allowed", len(in.Actor), maxActor)
	}
	i, err := ask(engine, ctx, in.Saga, in.Key, sagas.Request{Actor: in.Actor, Note: in.Note})
	if err != nil {
		return sagasapi.SagaInstance{}, err
	}
	s.cfg.Logger.InfoContext(ctx, "an instance of a saga was "+done+" on request", "saga", in.Saga, "key", in.Key, "actor", in.Actor)
	return instance(&i), nil
}

// DrawSaga is POST /sagas/diagram.
func (s *Service) DrawSaga(ctx context.Context, r sagasapi.DrawSagaRequestObject) (sagasapi.DrawSagaResponseObject, error) {
	in := r.Body
	engine, err := s.engine(in.Saga)
	if err != nil {
		return nil, err
	}
	var now *sagas.Instance
	version := in.Version
	if in.Key != "" {
		i, err := engine.Get(ctx, in.Saga, in.Key)
		if err != nil {
			return nil, err
		}
		now = &i
		if version == 0 {
			version = i.Definition
		}
	}
	saga, err := engine.Saga(in.Saga, version)
	if err != nil {
		return nil, err
	}
	switch diagram := saga.Diagram(now); in.Format {
	case "", "svg":
		return sagasapi.DrawSaga200JSONResponse{Format: "svg", Diagram: diagram.SVG()}, nil
	case "mermaid":
		return sagasapi.DrawSaga200JSONResponse{Format: "mermaid", Diagram: diagram.Mermaid()}, nil
	default:
		return nil, problem.Invalid("format", "is %.64q, and has to be svg or mermaid", string(in.Format))
	}
}
