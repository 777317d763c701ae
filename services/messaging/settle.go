package messaging

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// progressEvery is how often a stream of progress has a line.
const progressEvery = 250 * time.Millisecond

// settling is one request to replay or to discard.
type settling struct {
	service *Service
	filter  bus.LetterFilter
	asked   *messagingapi.SettleDeadLettersRequest
	act     func(context.Context, bus.LetterFilter, bus.SettleOptions) (*bus.Settled, error)
	answer  func(*bus.Settled) any
	audit   func(*settling, *bus.Settled) (topic string, e bus.Event)
}

// ReplayDeadLetters is POST /messaging/dead-letters/replay.
func (s *Service) ReplayDeadLetters(ctx context.Context, r messagingapi.ReplayDeadLettersRequestObject) (messagingapi.ReplayDeadLettersResponseObject, error) {
	w, err := s.settling(r.Body)
	if err != nil {
		return nil, err
	}
	w.act = s.cfg.Bus.ReplayLetters
	w.answer = func(d *bus.Settled) any {
		return messagingapi.ReplayDeadLettersResponse{Matched: d.Matched, Replayed: d.Done, FailedCount: d.Failed, Failed: failures(d), Ids: d.IDs}
	}
	w.audit = func(w *settling, d *bus.Settled) (string, bus.Event) {
		return events.TopicMessagingDeadLettersReplayed, &events.DeadLettersReplayedEvent{Actor: w.actor(), AppID: s.cfg.AppID,
			Matched: d.Matched, Count: d.Done, Failed: d.Failed, IDs: w.named(d), Filter: w.filterText()}
	}
	return w.respond(ctx)
}

// DiscardDeadLetters is POST /messaging/dead-letters/discard.
func (s *Service) DiscardDeadLetters(ctx context.Context, r messagingapi.DiscardDeadLettersRequestObject) (messagingapi.DiscardDeadLettersResponseObject, error) {
	w, err := s.settling(r.Body)
	if err != nil {
		return nil, err
	}
	w.act = s.cfg.Bus.DiscardLetters
	w.answer = func(d *bus.Settled) any {
		return messagingapi.DiscardDeadLettersResponse{Matched: d.Matched, Discarded: d.Done, FailedCount: d.Failed, Failed: failures(d), Ids: d.IDs}
	}
	w.audit = func(w *settling, d *bus.Settled) (string, bus.Event) {
		return events.TopicMessagingDeadLettersDiscarded, &events.DeadLettersDiscardedEvent{Actor: w.actor(), AppID: s.cfg.AppID,
			Matched: d.Matched, Count: d.Done, Failed: d.Failed, IDs: w.named(d), Filter: w.filterText()}
	}
	return w.respond(ctx)
}

// settling checks a request. One that means every dead letter has to say so.
func (s *Service) settling(body *messagingapi.SettleDeadLettersRequest) (*settling, error) {
	filter, err := letterFilter(body.Filter)
	if err != nil {
		return nil, err
	}
	if err := checkIDs("ids", body.Ids); err != nil {
		return nil, err
	}
	if len(body.Actor) > maxShortString {
		return nil, problem.Invalid("actor", "has %d bytes, at most %d are allowed", len(body.Actor), maxShortString)
	}
	switch none := filter.IsZero(); {
	case len(body.Ids) > 0 && !none:
		return nil, problem.Invalid("filter", "is given beside ids: give one of them")
	case len(body.Ids) > 0:
		filter.IDs = body.Ids
	case none && !body.All:
		return nil, problem.Invalid("all", "has to be true where neither ids nor a filter is given: every dead letter is meant then")
	}
	return &settling{service: s, filter: filter, asked: body}, nil
}

// respond does the work and answers, or streams its progress.
func (w *settling) respond(ctx context.Context) (settled, error) {
	if w.asked.Progress {
		return func(to http.ResponseWriter) error { w.stream(ctx, to); return nil }, nil
	}
	done, err := w.do(ctx, nil)
	if err != nil {
		return nil, err
	}
	return func(to http.ResponseWriter) error {
		to.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(to).Encode(w.answer(done))
	}, nil
}

// settled is an answer that writes itself.
type settled func(http.ResponseWriter) error

// VisitReplayDeadLettersResponse writes the answer.
func (s settled) VisitReplayDeadLettersResponse(w http.ResponseWriter) error { return s(w) }

// VisitDiscardDeadLettersResponse writes the answer.
func (s settled) VisitDiscardDeadLettersResponse(w http.ResponseWriter) error { return s(w) }

// do does the work, and tells of it also when it ended early. A node that stops ends it between two letters.
func (w *settling) do(ctx context.Context, progress func(bus.LetterProgress)) (*bus.Settled, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-w.service.draining:
			cancel()
		case <-ctx.Done():
		}
	}()
	done, err := w.act(ctx, w.filter, bus.SettleOptions{DryRun: w.asked.DryRun, Progress: progress})
	if done != nil && !w.asked.DryRun && done.Matched > 0 {
		telling, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.service.cfg.PublishTimeout)
		defer cancel()
		topic, e := w.audit(w, done)
		w.service.announce(telling, topic, e)
	}
	if errors.Is(err, context.Canceled) {
		return done, problem.New(problem.Unavailable, "the work was cut short after %d dead letters; what was not done is there still: "+
			"ask again", doneOf(done)).Because(err)
	}
	return done, letterProblem(err, "filter")
}

func doneOf(d *bus.Settled) int64 {
	if d == nil {
		return 0
	}
	return d.Done
}

// stream writes a line now and then, and one at the end.
func (w *settling) stream(ctx context.Context, to http.ResponseWriter) {
	to.Header().Set("Content-Type", "application/x-ndjson")
	to.Header().Set("Cache-Control", "no-store")
	to.Header().Set("X-Accel-Buffering", "no") // a reverse proxy in between passes lines on at once
	to.WriteHeader(http.StatusOK)
	conn := http.NewResponseController(to)
	write := func(line messagingapi.DeadLetterProgress) {
		// What did not come by a socket has no deadline to set. A reader that is gone ends the request's context.
		_ = conn.SetWriteDeadline(time.Now().Add(tailWriteTimeout))
		if json.NewEncoder(to).Encode(line) == nil {
			_ = conn.Flush()
		}
	}
	defer func() { _ = conn.SetWriteDeadline(time.Time{}) }()
	var last time.Time
	done, err := w.do(ctx, func(p bus.LetterProgress) {
		if now := time.Now(); now.Sub(last) >= progressEvery {
			last = now
			write(progressLine(p))
		}
	})
	end := messagingapi.DeadLetterProgress{}
	if done != nil {
		end = progressLine(done.LetterProgress)
	}
	if err != nil {
		end.Problem = asJSON(problem.From(err))
	} else {
		end.Result = asJSON(w.answer(done))
	}
	write(end)
}

func asJSON(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage("null")
	}
	return text
}

func progressLine(p bus.LetterProgress) messagingapi.DeadLetterProgress {
	return messagingapi.DeadLetterProgress{Total: p.Total, Read: p.Read, Matched: p.Matched, Done: p.Done, Failed: p.Failed}
}

// failures are the letters that stayed, with reasons for people.
func failures(d *bus.Settled) []messagingapi.DeadLetterFailure {
	list := make([]messagingapi.DeadLetterFailure, len(d.Failures))
	for i, f := range d.Failures {
		why := f.Err.Error()
		if errors.Is(f.Err, bus.ErrUnroutable) {
			why = "the queue of its subscription is gone; subscribe again with the same group, or discard it"
		}
		list[i] = messagingapi.DeadLetterFailure{ID: f.ID, Reason: why}
	}
	return list
}

func (w *settling) actor() string { return cmp.Or(w.asked.Actor, w.service.cfg.AppID) }

// named is never nil: the event has a list.
func (w *settling) named(d *bus.Settled) []string { return append([]string{}, d.IDs...) }

// filterText is the filter as it was asked with.
func (w *settling) filterText() string {
	if len(w.asked.Ids) > 0 {
		return ""
	}
	return string(asJSON(w.asked.Filter))
}
