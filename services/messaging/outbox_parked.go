package messaging

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
	"github.com/bannou-mesh/bannou/services/problem"
	"github.com/bannou-mesh/bannou/services/relay"
)

const (
	parkedPage     = 100
	maxParkedPage  = 1000
	maxParkedStart = 2 << 10 // of a body, in a list
)

// ListOutbox is POST /messaging/outbox/list.
func (s *Service) ListOutbox(ctx context.Context, r messagingapi.ListOutboxRequestObject) (messagingapi.ListOutboxResponseObject, error) {
	var body messagingapi.ListOutboxRequest
	if r.Body != nil {
		body = *r.Body
	}
	limit, after := parkedPage, int64(0)
	if body.Limit != nil {
		if limit = *body.Limit; limit < 1 || limit > maxParkedPage {
			return nil, problem.Invalid("limit", "is %d, and has to be 1 to %d", limit, maxParkedPage)
		}
	}
	if body.Cursor != "" {
		var err error
		if after, err = strconv.ParseInt(body.Cursor, 10, 64); err != nil {
			return nil, problem.Invalid("cursor", "is %.64q, and has to be the cursor of a page before", body.Cursor)
		}
	}
	sender, err := s.outboxOf(body.Outbox)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, storing)
	defer cancel()
	entries, err := sender.Outbox().Parked(ctx, after, limit)
	if err != nil {
		return nil, outboxProblem(err)
	}
	stats, err := sender.Recount(ctx)
	if err != nil {
		return nil, outboxProblem(err)
	}
	answer := messagingapi.ListOutbox200JSONResponse{Parked: stats.Parked, Waiting: stats.Depth, Events: make([]messagingapi.ParkedEvent, len(entries))}
	for i := range entries {
		answer.Events[i] = parkedEvent(&entries[i])
	}
	for _, name := range slices.Sorted(maps.Keys(s.cfg.Outboxes)) {
		known := s.cfg.Outboxes[name].Figures()
		answer.Others = append(answer.Others, messagingapi.OtherOutbox{Name: name, Parked: known.Parked, Waiting: known.Depth})
	}
	if len(entries) == limit {
		answer.Cursor = answer.Events[limit-1].ID
	}
	return answer, nil
}

func parkedEvent(e *state.ParkedEntry) messagingapi.ParkedEvent {
	start := e.Body[:min(len(e.Body), maxParkedStart)]
	return messagingapi.ParkedEvent{
		ID: strconv.FormatInt(e.ID, 10), Topic: e.Topic, PartitionKey: e.Key, MessageID: relay.MessageID(&e.OutboxEntry), Reason: e.Reason,
		Size: len(e.Body), Body: strings.ToValidUTF8(string(start), "\ufffd"), PublishedAt: e.CreatedAt, ParkedAt: e.ParkedAt,
	}
}

// RetryOutbox is POST /messaging/outbox/retry.
func (s *Service) RetryOutbox(ctx context.Context, r messagingapi.RetryOutboxRequestObject) (messagingapi.RetryOutboxResponseObject, error) {
	n, err := s.settleOutbox(ctx, r.Body, "sent again", state.Outbox.Unpark)
	if err != nil {
		return nil, err
	}
	return messagingapi.RetryOutbox200JSONResponse{Count: n}, nil
}

// DiscardOutbox is POST /messaging/outbox/discard.
func (s *Service) DiscardOutbox(ctx context.Context, r messagingapi.DiscardOutboxRequestObject) (messagingapi.DiscardOutboxResponseObject, error) {
	n, err := s.settleOutbox(ctx, r.Body, "discarded", state.Outbox.Discard)
	if err != nil {
		return nil, err
	}
	return messagingapi.DiscardOutbox200JSONResponse{Count: n}, nil
}

// settleOutbox does something with the events that are asked for.
func (s *Service) settleOutbox(ctx context.Context, asked *messagingapi.SettleOutboxRequest, what string,
	settle func(state.Outbox, context.Context, ...int64) (int64, error)) (int64, error) {
	switch {
	case len(asked.Ids) > 0 && asked.All:
		return 0, problem.Invalid("all", "is true, and ids are given: give one of them").At("all")
	case len(asked.Ids) == 0 && !asked.All:
		return 0, problem.Missing("ids")
	}
	if err := checkIDs("ids", asked.Ids); err != nil {
		return 0, err
	}
	ids := make([]int64, len(asked.Ids))
	for i, text := range asked.Ids {
		var err error
		if ids[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return 0, problem.Invalid("ids", "has %.64q, which is no id of an event of the outbox", text)
		}
	}
	sender, err := s.outboxOf(asked.Outbox)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, storing)
	defer cancel()
	n, err := settle(sender.Outbox(), ctx, ids...)
	if err != nil {
		return 0, outboxProblem(err)
	}
	s.cfg.Logger.InfoContext(ctx, "events of the outbox that were set aside were "+what, "count", n)
	sender.Look()
	if _, err := sender.Recount(ctx); err != nil {
		s.cfg.Logger.DebugContext(ctx, "the outbox could not be counted; the relay does it soon", "error", err)
	}
	return n, nil
}

// outboxOf is what sends the events of the outbox that a request names.
func (s *Service) outboxOf(name string) (*relay.Relay, error) {
	switch other := s.cfg.Outboxes[name]; {
	case other != nil:
		return other, nil
	case name != "":
		return nil, problem.Invalid("outbox", "is %.64q, and this node has no outbox of that name: list them without one", name).At("outbox")
	case s.outbox == nil:
		return nil, problem.New(problem.Unsupported, "this node has no outbox: its broker is in memory, or --no-messaging-outbox was given")
	default:
		return s.outbox.relay, nil
	}
}

// outboxProblem is an error of the outbox's table as callers see it.
func outboxProblem(err error) error {
	switch {
	case errors.Is(err, state.ErrOutcomeUnknown):
		return problem.New(problem.OutcomeUnknown, "the database of the outbox did not say whether it was done; list the events again").Because(err)
	case errors.Is(err, state.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Unavailable, "the database of the outbox is away; try again").Because(err)
	default:
		return err
	}
}
