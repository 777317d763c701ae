package relay

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// A Message is what is published of a recorded event. Its eventId is the recorded event's id, its timestamp the instant of its
// recording, its cause and correlation are those of the event's metadata, and its trace goes on.
type Message struct {
	Topic string
	// Event is what is published, or else Body, a JSON object.
	Event bus.Event
	Body  jsontext.Value
	Type  string // of a Body, as bus.PublishOptions has it

	// ID replaces the event's id. Default: that, and for further messages of one event one made of it and of their number.
	ID string
	// PartitionKey has messages handled in order. Default: the stream's id.
	PartitionKey string
	Priority     uint8
	Mandatory    bool // one that no queue takes parks its stream
	Headers      map[string]string
}

// publish begins to publish the n-th message of an event.
func (l *Log) publish(ctx context.Context, e *eventstore.Recorded, m *Message, n int) (*bus.Publication, error) {
	options := bus.PublishOptions{
		MessageID: m.id(e, n), Type: m.Type, CorrelationID: e.Metadata.CorrelationID, PartitionKey: m.PartitionKey,
		Priority: m.Priority, Mandatory: m.Mandatory, Headers: m.Headers,
	}
	if options.PartitionKey == "" {
		options.PartitionKey = e.Stream.ID
	}
	if cause := e.Metadata.CausationID; cause != "" && options.Headers[bus.HeaderCausationID] == "" {
		options.Headers = maps.Clone(options.Headers)
		if options.Headers == nil {
			options.Headers = map[string]string{}
		}
		options.Headers[bus.HeaderCausationID] = cause
	}
	body := []byte(m.Body)
	if m.Event != nil {
		options.Type = m.Event.EventName()
		m.Event.Stamp(options.MessageID, e.RecordedAt)
		encoded, err := json.Marshal(m.Event)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", bus.ErrInvalid, err)
		}
		body = encoded
	} else {
		body = stamped(body, e.RecordedAt)
	}
	return l.cfg.Bus.PublishRawAsync(ctx, m.Topic, body, options)
}

func (m *Message) id(e *eventstore.Recorded, n int) string {
	switch {
	case m.ID != "":
		return m.ID
	case n == 0:
		return e.ID
	default:
		of, _ := uuid.Parse(e.ID) // the store has checked it
		return uuid.NewSHA1(of, []byte(strconv.Itoa(n))).String()
	}
}

// stamped gives a JSON object the time of its recording, unless it has one: each time that it is published it is the same. What is no object
// is for the bus to refuse.
func stamped(body []byte, at time.Time) []byte {
	const member = "timestamp"
	d := jsontext.NewDecoder(bytes.NewReader(body))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return body
	}
	add := `"` + member + `":"` + at.UTC().Format(time.RFC3339Nano) + `"`
	for first := true; ; first = false {
		name, err := d.ReadToken()
		switch {
		case err != nil, name.Kind() == '"' && name.String() == member:
			return body
		case name.Kind() == '}':
			if !first {
				add += ","
			}
			after := bytes.IndexByte(body, '{') + 1
			return append(append(body[:after:after], add...), body[after:]...)
		}
		if d.SkipValue() != nil {
			return body
		}
	}
}

// traced is a context with the trace that an event was recorded in.
func traced(ctx context.Context, e *eventstore.Recorded) context.Context {
	if e.Metadata.Trace == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{bus.HeaderTraceParent: e.Metadata.Trace})
}
