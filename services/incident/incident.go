package incident

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/trace"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/host"
)

// An occurrence is one time that an incident happened.
type occurrence struct {
	kind                            events.ServiceErrorKind
	service, operation, code        string
	message                         string
	topic, messageID, correlationID string
	traceID                         string
}

// EventFailed reports what bus.Config.OnFailure is told. It does not wait.
func (r *Reporter) EventFailed(ctx context.Context, f bus.Failure) {
	if f.Topic == events.TopicServiceError {
		return
	}
	o := occurrence{
		kind: events.ServiceErrorKindUnhandled, service: f.Service, operation: f.Queue, code: f.Reason, message: f.Err.Error(),
		topic: f.Topic, messageID: f.MessageID, correlationID: f.CorrelationID,
	}
	if f.Kind == bus.FailureDeadLettered {
		o.kind = events.ServiceErrorKindDeadLetter
	}
	if o.operation == "" {
		o.operation = "publish " + f.Topic // it never came to a queue
	}
	r.note(ctx, o)
}

// RequestFailed reports what host.Config.OnFailure is told. It does not wait. What was wrong stays in the log, where the
// request's id, the event's correlation id, leads: whoever reads the bus may not be who may read the log.
func (r *Reporter) RequestFailed(ctx context.Context, f host.Failure) {
	r.note(ctx, occurrence{
		kind: events.ServiceErrorKindUnhandled, service: r.serviceOf(f.Operation), operation: f.Operation, code: string(f.Code),
		message: f.Detail, correlationID: f.RequestID,
	})
}

// serviceOf is the service that answers an operation such as "POST /state/save".
func (r *Reporter) serviceOf(operation string) string {
	_, path, _ := strings.Cut(operation, "/")
	first, _, _ := strings.Cut(path, "/")
	if name, known := r.cfg.Paths[first]; known {
		return name
	}
	if first == "" {
		return r.cfg.AppID
	}
	return first
}

// The longest key and message that a record holds, in bytes.
const (
	maxName    = 512
	maxMessage = 1 << 10
)

// note writes an occurrence into the record of its key.
func (r *Reporter) note(ctx context.Context, o occurrence) {
	now := time.Now()
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		o.traceID = span.TraceID().String()
	}
	o.message = cut(o.message, maxMessage)
	k := key{cut(o.service, maxName), cut(o.operation, maxName), cut(o.code, maxName)}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tallies[k]
	if t == nil {
		if len(r.tallies) >= maxKeys {
			r.dropped(ctx, 1, "too-many-keys")
			return
		}
		t = &tally{due: now}
		r.tallies[k] = t
	}
	if t.count++; t.count == 1 {
		t.first = now
		r.wakeUp()
	}
	t.last, t.latest = now, o
}

// cut shortens a text to at most n bytes of whole characters.
func cut(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "?")
}
