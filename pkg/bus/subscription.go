package bus

import (
	"context"
	"fmt"

	"github.com/google/uuid"
)

// A Subscription is a dynamic one: made and closed while the program runs. Its handler has the same middleware as static
// ones.
type Subscription struct {
	id     string
	source *source
}

// Subscribe handles the events of a topic or a pattern from now on. When it returns, what is published is handled; it
// waits for the broker until ctx ends, which does not end the subscription. Run is not needed.
//
// Without a group, the subscription has an exclusive queue "{topic}.dynamic.{uuid}" of its own that goes with it. With
// a group, it shares the queue "{topic}.{group}" with all subscriptions of that group; if also Durable, the queue
// stays, and collects, while the subscription is closed, until Remove.
func Subscribe[E any](ctx context.Context, b *Bus, topic string, h func(context.Context, *E) error, o SubscriptionOptions) (*Subscription, error) {
	return b.subscribe(ctx, topic, typed(h), o)
}

// SubscribeRaw is Subscribe for a handler that decodes for itself.
func (b *Bus) SubscribeRaw(ctx context.Context, topic string, h func(context.Context, *Received) error, o SubscriptionOptions) (*Subscription, error) {
	return b.subscribe(ctx, topic, raw(h), o)
}

func (b *Bus) subscribe(ctx context.Context, topic string, h handler, o SubscriptionOptions) (*Subscription, error) {
	r, err := b.reading(topic, o)
	if err != nil {
		return nil, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("cannot name a subscription: %w", err)
	}
	s := b.newSource(context.Background(), r, b.guarded(h)) //nolint:contextcheck // ctx bounds the call, not the subscription
	if err := b.remember(s); err != nil {
		return nil, fmt.Errorf("cannot subscribe to %q: %w", topic, err)
	}
	consumer, err := b.driver.Subscribe(ctx, r.queue)
	if err != nil {
		b.forget(s)
		return nil, fmt.Errorf("cannot subscribe to %q: %w", topic, err)
	}
	s.adopt(consumer) //nolint:contextcheck // as above
	return &Subscription{id: id.String(), source: s}, nil
}

// ID is the subscription's own name, a UUID.
func (s *Subscription) ID() string { return s.id }

// Queue is the name of the queue that it reads.
func (s *Subscription) Queue() string { return s.source.queue.Name }

// Topic is the topic or pattern that it was made with.
func (s *Subscription) Topic() string { return s.source.topic }

// Done is closed when the subscription has ended: by Close or Remove, with its bus, or because its driver was closed.
func (s *Subscription) Done() <-chan struct{} { return s.source.done }

// Close ends the subscription. It waits for its handlers until ctx ends; what they were at work on then goes back to
// the queue. The queue of a durable subscription stays and collects; any other goes. Closing again does nothing. A
// handler must not close its own subscription and wait for it.
func (s *Subscription) Close(ctx context.Context) error { return s.source.end(ctx) }

// Remove closes the subscription and removes its queue with what is in it, also where that is durable.
func (s *Subscription) Remove(ctx context.Context) error {
	if err := s.Close(ctx); err != nil {
		return err
	}
	if !s.source.queue.Durable {
		return nil
	}
	if err := s.source.bus.driver.DeleteQueue(ctx, s.Queue()); err != nil {
		return fmt.Errorf("cannot remove queue %q: %w", s.Queue(), err)
	}
	return nil
}
