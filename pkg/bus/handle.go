package bus

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
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
func typed[E any](h func(context.Context, *E) error) handler {
	return func(ctx context.Context, w *work) error {
		event := new(E)
		if err := json.Unmarshal(w.message.Body, event); err != nil {
			return &undecodableError{err}
		}
		return h(ctx, event)
	}
}

func raw(h func(context.Context, *Received) error) handler {
	return func(ctx context.Context, w *work) error { return h(ctx, w.received()) }
}

func (b *Bus) handle(topic, name string, h handler, o SubscriptionOptions) error {
	r, err := b.staticReading(topic, name, o)
	if err != nil {
		return err
	}
	s := b.newSource(context.Background(), r, b.guarded(h))
	started, err := b.register(name, s)
	if started { // otherwise Run starts it
		s.start()
	}
	return err
}

// staticReading is how a static handler reads, all defaults resolved.
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
	r.meter = b.telemetry.meter(r.queue.Name)
	return r, nil
}

// register adds a static handler. started tells whether Run is under way: then the caller starts it.
func (b *Bus) register(name string, s *source) (started bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing() {
		return false, fmt.Errorf("handler %q on %q: %w", name, s.topic, ErrClosed)
	}
	key := [2]string{s.topic, name}
	if _, taken := b.handlers[key]; taken {
		return false, fmt.Errorf("handler %q on %q: %w", name, s.topic, ErrDuplicateHandler)
	}
	if _, taken := b.queues[s.queue.Name]; taken {
		return false, fmt.Errorf("queue %q has a handler already, which would share its events: give this one a group of its own: %w",
			s.queue.Name, ErrDuplicateHandler)
	}
	b.handlers[key] = struct{}{}
	b.queues[s.queue.Name] = struct{}{}
	b.static[s] = struct{}{}
	b.sources[s] = struct{}{}
	return b.started, nil
}
