package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
)

// Publisher is the bus as a Watermill publisher: a message's UUID is its id, its metadata are its headers, its context
// bounds the publish. The payload is sent as it is, without a content type. Publish returns once all are confirmed.
func (b *Bus) Publisher() message.Publisher { return publisher{b} }

type publisher struct{ bus *Bus }

func (p publisher) Publish(topic string, messages ...*message.Message) error {
	for _, msg := range messages {
		if err := p.publish(topic, msg); err != nil {
			return err
		}
	}
	return nil
}

func (p publisher) publish(topic string, msg *message.Message) error {
	id := msg.UUID
	if id == "" {
		made, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("cannot make a message id: %w", err)
		}
		id = made.String()
	}
	m := &Message{RoutingKey: topic, ID: id, Timestamp: time.Now().UTC(), Headers: make(map[string]string, len(msg.Metadata)+4), Body: msg.Payload}
	maps.Copy(m.Headers, msg.Metadata)
	if err := p.bus.check(topic, m); err != nil {
		return err
	}
	return p.bus.send(msg.Context(), topic, m)
}

// Close does nothing: the bus is closed by Bus.Close.
func (p publisher) Close() error { return nil }

// Subscriber is the bus as a Watermill subscriber to topics and patterns. It reads the durable queue
// "{topic}.{group}", whose group is the AppID unless the options name one; with Exclusive and no group, a queue of its
// own that goes with the subscription. Up to PrefetchCount messages are out at a time: 1 gives them strictly in order.
//
// On the bus's Router, a handler that reads from it has the same retries and dead letters as any other. Elsewhere it
// has Watermill's own meaning: Nack gives the message back to be delivered again at once. Closing the subscriber gives
// back what is neither acked nor nacked. If the broker is away, Subscribe returns after two seconds and goes on
// trying.
func (b *Bus) Subscriber(o SubscriptionOptions) message.Subscriber {
	if o.Group == "" && o.Queue == "" && !o.Exclusive {
		o.Group = b.cfg.AppID
	}
	if o.Group != "" || o.Queue != "" {
		o.Durable = true
	}
	return &subscriber{bus: b, options: o, sources: make(map[*source]struct{})}
}

type subscriber struct {
	bus     *Bus
	options SubscriptionOptions

	mu      sync.Mutex
	closed  bool
	sources map[*source]struct{}
}

func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	r, err := s.bus.reading(topic, s.options)
	if err != nil {
		return nil, err
	}
	out := &outlet{messages: make(chan *message.Message)}
	src := s.bus.newSource(ctx, r, out.handle)
	unhook := context.AfterFunc(ctx, src.stop)
	src.ended = func() {
		unhook()
		s.drop(src)
		out.close()
	}
	if err := s.add(src); err != nil {
		src.abandon(err)
		src.stop()
		unhook()
		return nil, fmt.Errorf("cannot subscribe to %q: %w", topic, err)
	}
	src.start() //nolint:contextcheck // the source ends with ctx, by its own
	if errors.Is(src.failure, ErrInvalid) || errors.Is(src.failure, ErrClosed) {
		src.stop()
		<-src.done
		return nil, fmt.Errorf("cannot subscribe to %q: %w", topic, src.failure)
	}
	return out.messages, nil
}

// outlet is where the deliveries of a source come out as Watermill messages.
type outlet struct {
	messages chan *message.Message
	sending  sync.RWMutex // read-held by who sends, held by who closes
}

// handle gives a delivery to whoever reads, and waits for what becomes of it.
func (o *outlet) handle(ctx context.Context, w *work) error {
	ctx, cancel := context.WithCancel(ctx) // Watermill's messages have contexts that end when they are settled
	defer cancel()
	msg := message.NewMessage(w.message.ID, w.message.Body)
	maps.Copy(msg.Metadata, w.message.Headers)
	msg.SetContext(ctx)
	if !o.send(w.source.flow, msg) { //nolint:contextcheck // sending ends with the flow
		return ErrClosed
	}
	select {
	case <-msg.Acked():
		return nil
	case <-msg.Nacked():
		return errNacked
	case <-w.source.working.Done():
		return ErrClosed
	}
}

func (o *outlet) send(flow context.Context, msg *message.Message) bool {
	o.sending.RLock()
	defer o.sending.RUnlock()
	if flow.Err() != nil {
		return false
	}
	select {
	case o.messages <- msg:
		return true
	case <-flow.Done():
		return false
	}
}

// close ends the reader's channel. The flow has ended, so that nobody sends for long.
func (o *outlet) close() {
	o.sending.Lock()
	defer o.sending.Unlock()
	close(o.messages)
}

// errNacked sends a delivery back to its queue.
var errNacked = errors.New("the message was nacked")

// SubscribeInitialize declares the queue of a topic, so that it collects what is published before Subscribe.
func (s *subscriber) SubscribeInitialize(topic string) error {
	r, err := s.bus.reading(topic, s.options)
	if err != nil || !r.queue.Durable {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.bus.cfg.PublishTimeout)
	defer cancel()
	src := s.bus.newSource(ctx, r, func(context.Context, *work) error { return ErrClosed })
	consumer, err := s.bus.driver.Subscribe(ctx, r.queue)
	if err != nil {
		return fmt.Errorf("cannot declare the queue of %q: %w", topic, err)
	}
	src.stop()
	src.adopt(consumer)
	<-src.done
	return nil
}

// Close ends all its subscriptions and closes their channels.
func (s *subscriber) Close() error {
	s.mu.Lock()
	s.closed = true
	sources := make([]*source, 0, len(s.sources))
	for src := range s.sources {
		sources = append(sources, src)
	}
	s.mu.Unlock()
	for _, src := range sources {
		src.stop()
		src.abandon(ErrClosed)
		<-src.done
	}
	return nil
}

func (s *subscriber) add(src *source) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if err := s.bus.remember(src); err != nil {
		return err
	}
	s.sources[src] = struct{}{}
	return nil
}

func (s *subscriber) drop(src *source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sources, src)
}
