package bus

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/uuid"
)

// Publish sends an event to all who subscribe to the topic, and returns its id once the broker has confirmed it. A
// topic is lower-case words with dots between them, at most 255 bytes. The event is stamped: it gets a new id (UUID
// version 7) and the time of now unless it has its own.
//
// It returns by the context's deadline (without one, by Config.PublishTimeout). ErrUnavailable: not sent.
// ErrNotConfirmed: it may or may not have arrived; publishing the same event again is safe where handlers look at its id.
//
// Inside a handler, ctx being the handler's, the new event carries the correlation id of the handled one (its id, where
// it has none) and names it as its cause.
func (b *Bus) Publish(ctx context.Context, topic string, e Event) (messageID string, err error) {
	return b.PublishWith(ctx, topic, e, PublishOptions{})
}

// PublishWith is Publish with options.
func (b *Bus) PublishWith(ctx context.Context, topic string, e Event, o PublishOptions) (messageID string, err error) {
	m, err := b.typedMessage(topic, e, o)
	if err != nil {
		return "", err
	}
	return m.ID, b.send(ctx, topic, m)
}

// PublishRaw sends a body as it is. With a JSON content type (the default) it must be one JSON object; an eventId and
// a timestamp are added where it has none, and the message id is its eventId. With any other content type the body is
// not looked at. The body is copied.
func (b *Bus) PublishRaw(ctx context.Context, topic string, body []byte, o PublishOptions) (messageID string, err error) {
	m, err := b.rawMessage(topic, body, o)
	if err != nil {
		return "", err
	}
	return m.ID, b.send(ctx, topic, m)
}

func (b *Bus) typedMessage(topic string, e Event, o PublishOptions) (*Message, error) {
	if isNil(e) {
		return nil, fmt.Errorf("%w: the event for topic %q is nil", ErrInvalid, topic)
	}
	id, at, err := stamp(o)
	if err != nil {
		return nil, err
	}
	id, at = e.Stamp(id, at)
	if o.MessageID != "" && o.MessageID != id {
		return nil, idConflict(o.MessageID, id)
	}
	body, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot encode %s: %w", ErrInvalid, e.EventName(), err)
	}
	if o.Type == "" {
		o.Type = e.EventName()
	}
	o.ContentType = contentTypeJSON
	return b.message(topic, id, at, body, o)
}

func (b *Bus) rawMessage(topic string, body []byte, o PublishOptions) (*Message, error) {
	p, err := b.stampRaw(topic, body, o)
	if err != nil {
		return nil, err
	}
	return b.message(topic, p.Options.MessageID, p.at, bytes.Clone(p.Body), p.Options)
}

// stamp is the id and the time that an event gets if it has none.
func stamp(o PublishOptions) (id string, at time.Time, err error) {
	if id = o.MessageID; id == "" {
		made, err := uuid.NewV7()
		if err != nil {
			return "", time.Time{}, fmt.Errorf("cannot make an event id: %w", err)
		}
		id = made.String()
	}
	return id, time.Now().UTC(), nil
}

func idConflict(asked, own string) error {
	return fmt.Errorf("%w: message id %q was asked for, but the event's own id is %q", ErrInvalid, asked, own)
}

func isNil(e Event) bool {
	if e == nil {
		return true
	}
	v := reflect.ValueOf(e)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// message is a body with its properties, or why no broker would take it.
func (b *Bus) message(topic, id string, at time.Time, body []byte, o PublishOptions) (*Message, error) {
	m := &Message{
		Exchange:      o.Exchange,
		RoutingKey:    cmp.Or(o.RoutingKey, topic),
		ID:            id,
		Type:          o.Type,
		ContentType:   o.ContentType,
		Timestamp:     at,
		CorrelationID: o.CorrelationID,
		Priority:      o.Priority,
		Expiration:    o.Expiration,
		Transient:     o.Transient,
		Mandatory:     o.Mandatory,
		Headers:       make(map[string]string, len(o.Headers)+4),
		Body:          body,
	}
	maps.Copy(m.Headers, o.Headers)
	if o.PartitionKey != "" {
		m.Headers[HeaderPartitionKey] = o.PartitionKey
	}
	if err := b.check(topic, m); err != nil {
		return nil, err
	}
	return m, nil
}

// send gives a message to the driver, and waits for its confirmation.
func (b *Bus) send(ctx context.Context, topic string, m *Message) error {
	ctx, s, err := b.prepare(ctx, topic, m)
	if err != nil {
		return err
	}
	return s.ended(b.driver.Publish(ctx, m))
}

// A sending is one message between the bus and the driver.
type sending struct {
	topic string
	late  *lateContext // the bus's own deadline; nil where the caller has one
	done  func(error)
}

// prepare completes a message with what comes from the context, and bounds the wait.
func (b *Bus) prepare(ctx context.Context, topic string, m *Message) (context.Context, sending, error) {
	if b.isClosed() {
		return nil, sending{}, fmt.Errorf("cannot publish to %q: %w", topic, ErrClosed)
	}
	if m.Exchange == b.cfg.Exchange {
		m.Exchange = "" // the driver's word for it
	}
	m.Headers[HeaderSourceService] = b.cfg.AppID
	if w := workFrom(ctx); w != nil {
		m.Headers[HeaderCausationID] = w.message.ID
		if m.CorrelationID == "" {
			m.CorrelationID = w.correlationID()
		}
	}
	s := sending{topic: topic}
	if _, bounded := ctx.Deadline(); !bounded {
		s.late = &lateContext{parent: ctx, deadline: time.Now().Add(b.cfg.PublishTimeout)}
		ctx = s.late
	}
	ctx, s.done = b.telemetry.publishing(ctx, topic, m)
	return ctx, s, nil
}

// ended is what the caller is told.
func (s sending) ended(err error) error {
	s.done(err)
	if s.late != nil {
		s.late.end()
	}
	if err != nil {
		return fmt.Errorf("cannot publish to %q: %w", s.topic, err)
	}
	return nil
}

// check refuses what no broker would take.
func (b *Bus) check(topic string, m *Message) error {
	if err := b.CheckTopic(topic, false); err != nil {
		return err
	}
	if m.RoutingKey != topic {
		if err := b.CheckTopic(m.RoutingKey, false); err != nil {
			return fmt.Errorf("as a routing key: %w", err)
		}
	}
	if m.Exchange != "" {
		if err := checkName("exchange", m.Exchange); err != nil {
			return err
		}
		if m.Exchange == b.cfg.DeadLetterExchange {
			return fmt.Errorf("%w: exchange %q is for dead letters: choose another", ErrInvalid, m.Exchange)
		}
	}
	if m.Priority > 9 {
		return fmt.Errorf("%w: priority %d, at most 9 is allowed", ErrInvalid, m.Priority)
	}
	if m.Expiration < 0 {
		return fmt.Errorf("%w: expiration %s is negative", ErrInvalid, m.Expiration)
	}
	for _, p := range [...]struct{ what, value string }{
		{"message id", m.ID},
		{"type", m.Type},
		{"content type", m.ContentType},
		{"correlation id", m.CorrelationID},
	} {
		if err := checkShort(p.what, p.value); err != nil {
			return err
		}
	}
	for name := range m.Headers {
		if name == "" {
			return fmt.Errorf("%w: a header has no name", ErrInvalid)
		}
		if err := checkShort("name of a header", name); err != nil {
			return err
		}
		if renamedHeader(name) != name {
			return fmt.Errorf("%w: a header has the name %q, which RabbitMQ takes for a list of further queues to send the event to: choose another", ErrInvalid, name)
		}
	}
	return b.checkSize(m.Body)
}

func (b *Bus) checkSize(body []byte) error {
	if len(body) > b.cfg.MaxBodyBytes {
		return fmt.Errorf("%w: the body has %d bytes, at most %d are allowed", ErrInvalid, len(body), b.cfg.MaxBodyBytes)
	}
	return nil
}
