package bus

import (
	"bytes"
	"context"
	"time"
)

// A Prepared is an event that was checked and stamped and can be sent now or later, more than once: it has its id and
// its time, and handlers tell a second arrival by the id. Keep its members to send it from another process: PublishRaw of
// them sends the same event.
type Prepared struct {
	Topic   string
	Body    []byte         // with eventId and timestamp
	Options PublishOptions // with MessageID and ContentType

	at time.Time
}

// Prepare does all of PublishRaw but the sending. Its errors are those of input that no broker would take.
func (b *Bus) Prepare(topic string, body []byte, o PublishOptions) (Prepared, error) {
	p, err := b.stampRaw(topic, body, o)
	if err != nil {
		return Prepared{}, err
	}
	if _, err := b.message(topic, p.Options.MessageID, p.at, p.Body, p.Options); err != nil {
		return Prepared{}, err
	}
	return p, nil
}

// PublishPrepared sends an event that Prepare returned, as PublishRaw would have done.
func (b *Bus) PublishPrepared(ctx context.Context, p Prepared) error {
	m, err := b.message(p.Topic, p.Options.MessageID, p.at, bytes.Clone(p.Body), p.Options)
	if err != nil {
		return err
	}
	return b.send(ctx, p.Topic, m)
}

// PublishDeadLetter sends an event that never came to a queue to the dead letters, with one of the Discard reasons: its
// time ran out, or no queue would take it. Its errors are those of PublishRaw.
func (b *Bus) PublishDeadLetter(ctx context.Context, topic string, body []byte, o PublishOptions, reason string, cause error) error {
	m, err := b.rawMessage(topic, body, o)
	if err != nil {
		return err
	}
	err = b.send(ctx, topic, DeadLetter(m, Discard{
		Exchange: b.cfg.Exchange, DeadLetterExchange: b.cfg.DeadLetterExchange, Reason: reason, Err: cause, At: time.Now(),
	}))
	if err == nil {
		b.tell(ctx, Failure{Kind: FailureDeadLettered, Topic: m.RoutingKey, MessageID: m.ID, CorrelationID: m.CorrelationID,
			Reason: reason, Err: cause})
	}
	return err
}

// stampRaw gives a body its id and time, and the options what follows from it.
func (b *Bus) stampRaw(topic string, body []byte, o PublishOptions) (Prepared, error) {
	if err := b.checkSize(body); err != nil {
		return Prepared{}, err
	}
	id, at, err := stamp(o)
	if err != nil {
		return Prepared{}, err
	}
	if o.ContentType == "" {
		o.ContentType = contentTypeJSON
	}
	if isJSON(o.ContentType) {
		if body, id, at, err = stampBody(body, id, at); err != nil {
			return Prepared{}, err
		}
		if o.MessageID != "" && o.MessageID != id {
			return Prepared{}, idConflict(o.MessageID, id)
		}
	}
	o.MessageID = id
	return Prepared{Topic: topic, Body: body, Options: o, at: at}, nil
}
