package events

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/events/eventsapi"
	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/problem"
)

// SubscribeEvents is POST /events/subscribe. What a reader has not taken is not kept for it: there are the event that is being written, and the
// page of the log that it is of.
func (e endpoints) SubscribeEvents(w http.ResponseWriter, r *http.Request, params eventsapi.SubscribeEventsParams) {
	request, err := jsonbody.Decode[eventsapi.SubscribeEventsRequest](e.operations.Limits, w, r)
	if err != nil {
		problem.Write(w, err)
		return
	}
	ctx := e.identified(r)
	from, err := e.begin(ctx, request, params.LastEventID)
	if err != nil {
		problem.Write(w, eventsProblem(err))
		return
	}
	select {
	case e.followers <- struct{}{}:
		defer func() { <-e.followers }()
	default:
		problem.Write(w, problem.New(problem.Unavailable, "as many follow the log through this node as it lets: %d; try another node, or later", cap(e.followers)))
		return
	}
	e.follow(ctx, w, eventstore.FollowOptions{Category: request.Category, ID: request.ID, From: from})
}

// begin is the first position, or version, that a reader is to have. What cannot be read is told here, while there is a status to tell it with.
func (s *Service) begin(ctx context.Context, r *eventsapi.SubscribeEventsRequest, lastEventID string) (int64, error) {
	if err := s.mayRead(ctx, r.Category, r.ID); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	from, err := s.firstOf(ctx, r, lastEventID)
	if err != nil {
		return 0, err
	}
	for _, err := range s.read(ctx, r.Category, r.ID, eventstore.ReadOptions{From: from, Limit: 1}) {
		if err != nil {
			return 0, err
		}
	}
	return from, nil
}

// firstOf is where a reader asks to begin: behind the event that it has, where it says, or behind the last one that there is.
func (s *Service) firstOf(ctx context.Context, r *eventsapi.SubscribeEventsRequest, lastEventID string) (int64, error) {
	switch {
	case lastEventID != "":
		last, err := parseLastSeen(lastEventID)
		if err != nil {
			return 0, err
		}
		return last.at + 1, s.stillThere(ctx, r, last)
	case r.From != nil && *r.From < 0:
		return 0, problem.Invalid("from", "is %d, and has to be 0 or above", *r.From)
	case r.From != nil:
		return *r.From, nil
	}
	if r.ID == "" {
		head, err := s.cfg.Log.Head(ctx)
		return head + 1, err
	}
	for last, err := range s.read(ctx, r.Category, r.ID, eventstore.ReadOptions{Backward: true, Limit: 1}) {
		return last.Version + 1, err
	}
	return 1, nil
}

// follow writes events until the reader is gone or the node drains.
func (s *Service) follow(ctx context.Context, w http.ResponseWriter, o eventstore.FollowOptions) {
	ctx, end := context.WithCancel(ctx)
	events, failed := make(chan eventstore.Recorded), make(chan error, 1)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer end()
	reading.Go(func() { s.feed(ctx, o, events, failed) })

	stream := newFrames(w, s.cfg.WriteTimeout)
	defer stream.close()
	if !stream.write([]byte(": following\n\n")) {
		return
	}
	idle := time.NewTicker(s.cfg.Heartbeat)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.draining:
			stream.write([]byte(": the node is stopping\n\n"))
			return
		case <-idle.C:
			if !stream.write([]byte(": still here\n\n")) {
				return
			}
		case err := <-failed:
			s.cfg.Logger.WarnContext(ctx, "a reader's stream of events was ended: the log could not be read", "error", err)
			stream.write([]byte(": the log cannot be read; come again with Last-Event-ID\n\n"))
			return
		case e := <-events:
			idle.Reset(s.cfg.Heartbeat)
			frame, err := frameOf(&e, o.ID != "")
			if err != nil {
				s.cfg.Logger.ErrorContext(ctx, "an event cannot be written as JSON", "position", e.Position, "error", err)
				return
			}
			if !stream.write(frame) {
				return
			}
		}
	}
}

// feed reads the log as fast as the reader takes it.
func (s *Service) feed(ctx context.Context, o eventstore.FollowOptions, events chan<- eventstore.Recorded, failed chan<- error) {
	for e, err := range s.cfg.Log.Follow(ctx, o) {
		if err != nil {
			failed <- err
			return
		}
		select {
		case events <- e:
		case <-ctx.Done():
			return
		}
	}
}

// frames writes server-sent events.
type frames struct {
	w       http.ResponseWriter
	conn    *http.ResponseController
	timeout time.Duration
}

func newFrames(w http.ResponseWriter, timeout time.Duration) frames {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // a reverse proxy in between passes events on at once
	w.WriteHeader(http.StatusOK)
	return frames{w, http.NewResponseController(w), timeout}
}

// write sends a frame. False: the reader is gone, or too slow.
func (f frames) write(frame []byte) bool {
	// What did not come by a socket has no deadline to set.
	_ = f.conn.SetWriteDeadline(time.Now().Add(f.timeout))
	if _, err := f.w.Write(frame); err != nil {
		return false
	}
	return f.conn.Flush() == nil
}

func (f frames) close() { _ = f.conn.SetWriteDeadline(time.Time{}) }

// frameOf is an event as the specification of server-sent events has it. encoding/json compacts the data, so that there are no line breaks.
func frameOf(e *eventstore.Recorded, byVersion bool) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("id: " + seen(e, byVersion).String() + "\nevent: " + oneLine(e.Type) + "\n")
	b.WriteString("data: ")
	body := json.NewEncoder(&b)
	body.SetEscapeHTML(false)
	if err := body.Encode(recorded(e)); err != nil { // with a line break at its end
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// oneLine keeps what a stranger put into a type from becoming fields of its own.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == 0 {
			return ' '
		}
		return r
	}, s)
}
