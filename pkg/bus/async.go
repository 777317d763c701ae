package bus

import (
	"context"
	"sync"
)

// A Publication is an event on its way to the broker.
type Publication struct {
	id   string
	wait func() error
}

// PublishAsync is PublishWith without the wait: it hands the event to the connection and returns, so that one goroutine
// keeps many under way. Nothing is promised before Wait has returned nil, and Wait must be called.
//
// Events that one goroutine publishes so arrive in that order, unless the connection is lost under them: then Wait sends
// again what was not confirmed. ctx bounds the event's whole way, Wait included. PublishAsync itself waits only while the
// broker takes no messages. Its error is that of an event that no broker would take, or of a closed bus.
func (b *Bus) PublishAsync(ctx context.Context, topic string, e Event, o PublishOptions) (*Publication, error) {
	m, err := b.typedMessage(topic, e, o)
	if err != nil {
		return nil, err
	}
	return b.begin(ctx, topic, m)
}

// PublishRawAsync is PublishAsync for a body as it is, as in PublishRaw.
func (b *Bus) PublishRawAsync(ctx context.Context, topic string, body []byte, o PublishOptions) (*Publication, error) {
	m, err := b.rawMessage(topic, body, o)
	if err != nil {
		return nil, err
	}
	return b.begin(ctx, topic, m)
}

func (b *Bus) begin(ctx context.Context, topic string, m *Message) (*Publication, error) {
	ctx, s, err := b.prepare(ctx, topic, m)
	if err != nil {
		return nil, err
	}
	confirm := b.driver.Begin(ctx, m)
	return &Publication{id: m.ID, wait: sync.OnceValue(func() error { return s.ended(confirm()) })}, nil
}

// ID is the event's id.
func (p *Publication) ID() string { return p.id }

// Wait returns what Publish would have returned, by the deadline of the context that the event was published with.
// Further calls return the same.
func (p *Publication) Wait() error { return p.wait() }
