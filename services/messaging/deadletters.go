package messaging

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// maxLetterIDs bounds the ids of one request.
const maxLetterIDs = 1000

// ListDeadLetters is POST /messaging/dead-letters/list.
func (s *Service) ListDeadLetters(ctx context.Context, r messagingapi.ListDeadLettersRequestObject) (messagingapi.ListDeadLettersResponseObject, error) {
	var body messagingapi.ListDeadLettersRequest
	if r.Body != nil {
		body = *r.Body
	}
	filter, err := letterFilter(body.Filter)
	if err != nil {
		return nil, err
	}
	page := bus.LetterPage{After: body.Cursor}
	switch body.Order {
	case "", "newest":
	case "oldest":
		page.Order = bus.OldestFirst
	default:
		return nil, problem.Invalid("order", "is %.64q, and has to be newest or oldest", body.Order)
	}
	if body.Limit != nil {
		if *body.Limit < 1 || *body.Limit > bus.MaxLetters {
			return nil, problem.Invalid("limit", "is %d, and has to be 1 to %d", *body.Limit, bus.MaxLetters)
		}
		page.Limit = *body.Limit
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.LettersTimeout)
	defer cancel()
	list, err := s.cfg.Bus.ListLetters(ctx, filter, page)
	if err != nil {
		return nil, letterProblem(err, "cursor")
	}
	answer := messagingapi.ListDeadLetters200JSONResponse{
		Total: list.Total, Matched: list.Matched, DeadLetters: make([]messagingapi.DeadLetter, len(list.Letters)),
	}
	for i, l := range list.Letters {
		answer.DeadLetters[i] = deadLetter(l)
	}
	if n := len(list.Letters); n > 0 && (n == page.Limit || page.Limit == 0 && n == 100) {
		answer.Cursor = list.Letters[n-1].ID
	}
	return answer, nil
}

// GetDeadLetter is POST /messaging/dead-letters/get.
func (s *Service) GetDeadLetter(ctx context.Context, r messagingapi.GetDeadLetterRequestObject) (messagingapi.GetDeadLetterResponseObject, error) {
	if err := problem.Require("id", r.Body.ID); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.LettersTimeout)
	defer cancel()
	l, err := s.cfg.Bus.ShowLetter(ctx, r.Body.ID)
	if err != nil {
		return nil, letterProblem(err, "id")
	}
	answer := deadLetter(l)
	if json.Valid(l.Body) {
		answer.Body = l.Body
	} else {
		answer.BodyBase64 = base64.StdEncoding.EncodeToString(l.Body)
	}
	return messagingapi.GetDeadLetter200JSONResponse(answer), nil
}

// deadLetter is a letter as callers see it, without its body.
func deadLetter(l *bus.Letter) messagingapi.DeadLetter {
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.UTC()
		return &t
	}
	return messagingapi.DeadLetter{
		ID: l.ID, Topic: l.Topic, Exchange: l.Exchange, Queue: l.Queue, Handler: l.Handler,
		Reason: l.Reason, Exception: l.Exception, RetryCount: l.RetryCount,
		QueuedAt: at(l.QueuedAt), DiscardedAt: at(l.DiscardedAt),
		MessageID: l.MessageID, Type: l.Type, ContentType: l.ContentType, CorrelationID: l.CorrelationID,
		Headers: l.Headers, Size: l.Size,
	}
}

// letterFilter checks a filter member by member, so that the answer can name the one at fault.
func letterFilter(in messagingapi.DeadLetterFilter) (bus.LetterFilter, error) {
	f := bus.LetterFilter{
		IDs: in.Ids, Topic: in.Topic, Queue: in.Queue, Handler: in.Handler, Reason: in.Reason, ErrorContains: in.ErrorContains,
	}
	if err := checkIDs("filter.ids", in.Ids); err != nil {
		return f, err
	}
	for member, value := range map[string]string{"topic": in.Topic, "queue": in.Queue, "handler": in.Handler, "reason": in.Reason} {
		if len(value) > maxShortString {
			return f, problem.Invalid("filter."+member, "has %d bytes, at most %d are allowed", len(value), maxShortString)
		}
	}
	if len(in.ErrorContains) > maxHeader {
		return f, problem.Invalid("filter.errorContains", "has %d bytes, at most %d are allowed", len(in.ErrorContains), maxHeader)
	}
	var err error
	if f.Since, err = instant("filter.since", in.Since); err != nil {
		return f, err
	}
	if f.Until, err = instant("filter.until", in.Until); err != nil {
		return f, err
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		return f, problem.Invalid("filter.until", "has to be after filter.since: nothing can match")
	}
	return f, nil
}

// instant reads a time; empty is the zero time.
func instant(member, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, problem.Invalid(member, "is %.64q, and has to be a time as 2006-01-02T15:04:05Z", text)
	}
	return at, nil
}

func checkIDs(member string, ids []string) error {
	if len(ids) > maxLetterIDs {
		return problem.Invalid(member, "has %d ids, at most %d are allowed; use a filter for more", len(ids), maxLetterIDs)
	}
	for _, id := range ids {
		if id == "" || len(id) > maxShortString {
			return problem.Invalid(member, "has an id that is none: they have 1 to %d bytes", maxShortString)
		}
	}
	return nil
}

// letterProblem is an error of the dead-letter store as callers see it.
func letterProblem(err error, member string) error {
	switch {
	case errors.Is(err, bus.ErrNoLetter):
		return problem.New(problem.NotFound, "member %s: there is no such dead letter; it was replayed, discarded, or dropped "+
			"by a limit of the store: list them again", member).At(member).Because(err)
	case errors.Is(err, bus.ErrUnavailable), errors.Is(err, bus.ErrClosed), errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Unavailable, "the store of dead letters cannot be read now: the broker is away, or another "+
			"reader is at work; what was not done is there still: try again").Because(err)
	}
	return busProblem(err, member)
}
