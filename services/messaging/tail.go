package messaging

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

// tailWriteTimeout is how long a reader of a stream may take for one event before it counts as gone.
const tailWriteTimeout = 30 * time.Second

// TailTopic is POST /messaging/tail.
func (s *Service) TailTopic(ctx context.Context, r messagingapi.TailTopicRequestObject) (messagingapi.TailTopicResponseObject, error) {
	if err := problem.Require("topic", r.Body.Topic); err != nil {
		return nil, err
	}
	if err := s.maySubscribe(ctx, r.Body.Topic); err != nil {
		return nil, err
	}
	received, gone := make(chan *bus.Received), make(chan struct{})
	subscribing, cancel := context.WithTimeout(ctx, s.cfg.SubscribeTimeout)
	defer cancel()
	// One at a time, so that events come in the order of the queue; a reader that is slow holds up its own queue only.
	sub, err := s.cfg.Bus.SubscribeRaw(subscribing, r.Body.Topic, func(handling context.Context, e *bus.Received) error {
		select {
		case received <- e:
		case <-gone:
		case <-handling.Done():
		}
		return nil
	}, bus.SubscriptionOptions{AutoAck: true, NoDeadLetter: true, PrefetchCount: 1})
	if err != nil {
		return nil, busProblem(err, "topic")
	}
	return tail(func(w http.ResponseWriter) error {
		defer func() {
			close(gone)
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := sub.Close(closing); err != nil {
				s.cfg.Logger.Debug("the queue of a stream did not close; it goes with its connection", "error", err)
			}
		}()
		s.stream(ctx, w, received)
		return nil
	}), nil
}

// tail is an answer that writes itself for as long as the request lasts.
type tail func(w http.ResponseWriter) error

// VisitTailTopicResponse writes the stream.
func (t tail) VisitTailTopicResponse(w http.ResponseWriter) error { return t(w) }

// stream writes events until the reader is gone or the node drains.
func (s *Service) stream(ctx context.Context, w http.ResponseWriter, received <-chan *bus.Received) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // a reverse proxy in between passes events on at once
	w.WriteHeader(http.StatusOK)
	conn := http.NewResponseController(w)
	write := func(frame []byte) bool {
		// What did not come by a socket has no deadline to set.
		_ = conn.SetWriteDeadline(time.Now().Add(tailWriteTimeout))
		if _, err := w.Write(frame); err != nil {
			return false
		}
		return conn.Flush() == nil
	}
	defer func() { _ = conn.SetWriteDeadline(time.Time{}) }()
	if !write([]byte(": following\n\n")) {
		return
	}
	idle := time.NewTicker(s.cfg.TailHeartbeat)
	defer idle.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.draining:
			write([]byte(": the node is stopping\n\n"))
			return
		case <-idle.C:
			if !write([]byte(": still here\n\n")) {
				return
			}
		case e := <-received:
			if !write(frame(e)) {
				return
			}
		}
	}
}

// frame is one event as the specification of server-sent events has it: a field a line, a data field for each line of
// the body.
func frame(e *bus.Received) []byte {
	var b bytes.Buffer
	for _, field := range [...][2]string{{"id", e.MessageID}, {"event", e.Type}, {"topic", e.Topic}} {
		if field[1] != "" {
			b.WriteString(field[0] + ": " + oneLine(field[1]) + "\n")
		}
	}
	body := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(e.Body))
	for line := range strings.SplitSeq(strings.TrimRight(body, "\n"), "\n") {
		b.WriteString("data: " + line + "\n")
	}
	b.WriteByte('\n')
	return b.Bytes()
}

// oneLine keeps what a stranger put into a property from becoming fields of its own.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == 0 {
			return ' '
		}
		return r
	}, s)
}
