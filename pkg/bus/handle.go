package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/go-json-experiment/json"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Handle registers a handler for the events of a topic, or of a pattern ("*" one word, "#" any number). Its queue
// "{topic}.{group}" is durable: what is published while no instance runs waits there. The instances of a program share
// the queue, and each event is handled by one of them; a handler of another name has another queue and gets its own
// copy.
//
// The handler is at work on up to PrefetchCount events at a time, events with the same partition key one after
// another. It may see an event more than once. When it returns an error or panics, the event is retried as Config
// says and then dead-lettered; Permanent sends it there at once, as does a body that cannot be decoded into E. One
// consequence: an event that waits for its redelivery lets its successors pass, partition key or not.
//
// Handlers run while Run runs. ErrDuplicateHandler: the topic has a handler of that name, or one that reads the same
// queue.
func Handle[E any](b *Bus, topic, name string, h func(context.Context, *E) error, o SubscriptionOptions) error {
	return b.handle(topic, name, typed(h), o)
}

// HandleRaw is Handle for a handler that decodes for itself.
func (b *Bus) HandleRaw(topic, name string, h func(context.Context, *Received) error, o SubscriptionOptions) error {
	return b.handle(topic, name, raw(h), o)
}

// typed decodes the body for the handler.
func typed[E any](h func(context.Context, *E) error) message.NoPublishHandlerFunc {
	return func(msg *message.Message) error {
		event := new(E)
		if err := json.Unmarshal(msg.Payload, event); err != nil {
			return &undecodableError{err}
		}
		return h(msg.Context(), event)
	}
}

func raw(h func(context.Context, *Received) error) message.NoPublishHandlerFunc {
	return func(msg *message.Message) error {
		return h(msg.Context(), workFrom(msg.Context()).received())
	}
}

func (b *Bus) handle(topic, name string, h message.NoPublishHandlerFunc, o SubscriptionOptions) error {
	r, err := b.staticReading(topic, name, o)
	if err != nil {
		return err
	}
	r.label = metric.WithAttributeSet(attribute.NewSet(attribute.String("subscription", r.queue.Name)))
	s := b.newSource(context.Background(), r)
	started, err := b.register(name, s, h)
	if err != nil {
		return err
	}
	if !started {
		return nil // Run does the rest
	}
	defer b.adding.Done()
	s.start()
	return b.runHandlers()
}

// staticReading is how a static handler reads, checked.
func (b *Bus) staticReading(topic, name string, o SubscriptionOptions) (reading, error) {
	if err := checkName("handler", name); err != nil {
		return reading{}, err
	}
	if o.Group == "" {
		o.Group = b.cfg.AppID + "." + name
	}
	o.Durable = true
	r, err := b.reading(topic, o)
	if err != nil {
		return reading{}, fmt.Errorf("handler %q: %w", name, err)
	}
	return r, nil
}

// register adds a static handler to the router. started tells whether Run is under way: then the caller starts the
// handler, and says so to b.adding.
func (b *Bus) register(name string, s *source, h message.NoPublishHandlerFunc) (started bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing() {
		return false, fmt.Errorf("handler %q on %q: %w", name, s.topic, ErrClosed)
	}
	key := [2]string{s.topic, name}
	if _, taken := b.handlers[key]; taken {
		return false, fmt.Errorf("handler %q on %q: %w", name, s.topic, ErrDuplicateHandler)
	}
	out := make(chan *message.Message)
	s.pass = func(msg *message.Message) bool {
		select {
		case out <- msg:
			return true
		case <-s.flow.Done():
			return false
		}
	}
	s.ended = func() { close(out) }
	if err := addHandler(b.router, s.queue.Name, s.topic, readFrom(out), h); err != nil {
		return false, err
	}
	b.handlers[key] = struct{}{}
	b.static[s] = struct{}{}
	b.sources[s] = struct{}{}
	if b.started {
		b.adding.Add(1)
	}
	return b.started, nil
}

// addHandler is Router.AddConsumerHandler with an error for its panic. The name is the queue's, so that two handlers
// cannot read one queue by mistake.
func addHandler(r *message.Router, name, topic string, s message.Subscriber, h message.NoPublishHandlerFunc) (err error) {
	defer func() {
		if v := recover(); v != nil {
			var duplicate message.DuplicateHandlerNameError
			if e, ok := v.(error); ok && errors.As(e, &duplicate) {
				err = fmt.Errorf("queue %q has a handler already, which would share its events: give this one a group of its own: %w",
					name, ErrDuplicateHandler)
				return
			}
			panic(v)
		}
	}()
	r.AddConsumerHandler(name, topic, s, h)
	return nil
}

// readFrom is the router's view of a source: a channel that the source closes when it has ended.
type readFrom chan *message.Message

func (r readFrom) Subscribe(context.Context, string) (<-chan *message.Message, error) { return r, nil }
func (r readFrom) Close() error                                                       { return nil }
