package bus

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// An Event is a message body: one flat JSON object that has eventId and timestamp among its members.
type Event interface {
	// EventName is the type's name on the wire, such as "AccountCreatedEvent".
	EventName() string
	// Stamp gives the event this id and time unless it has its own, and returns those in force.
	Stamp(id string, at time.Time) (eventID string, timestamp time.Time)
}

// Received is a delivery as a raw handler sees it. Its maps and slices are the handler's to read, not to change.
type Received struct {
	Topic         string
	MessageID     string
	Type          string
	ContentType   string
	CorrelationID string
	Timestamp     time.Time
	Attempt       int // 1 for the first delivery
	Headers       map[string]string
	Body          []byte
}

// TopicInfo is a topic as listings show it.
type TopicInfo struct {
	Name          string
	Exchange      string
	MessageCount  int64 // waiting in all its queues
	ConsumerCount int64
}

// A Bus publishes events and hands them to handlers. It is safe for concurrent use.
type Bus struct{}

// Subscription is a dynamic subscription.
type Subscription struct{}

// New makes a bus.
func New(d Driver, cfg Config) (*Bus, error) { return &Bus{}, nil }

func (b *Bus) Publish(ctx context.Context, topic string, e Event) (string, error) { return "", nil }
func (b *Bus) PublishWith(ctx context.Context, topic string, e Event, o PublishOptions) (string, error) {
	return "", nil
}
func (b *Bus) PublishRaw(ctx context.Context, topic string, body []byte, o PublishOptions) (string, error) {
	return "", nil
}
func Handle[E any](b *Bus, topic, name string, h func(context.Context, *E) error, o SubscriptionOptions) error {
	return nil
}
func (b *Bus) HandleRaw(topic, name string, h func(context.Context, *Received) error, o SubscriptionOptions) error {
	return nil
}
func Subscribe[E any](ctx context.Context, b *Bus, topic string, h func(context.Context, *E) error, o SubscriptionOptions) (*Subscription, error) {
	return nil, nil
}
func (b *Bus) SubscribeRaw(ctx context.Context, topic string, h func(context.Context, *Received) error, o SubscriptionOptions) (*Subscription, error) {
	return nil, nil
}
func (s *Subscription) ID() string                                 { return "" }
func (s *Subscription) Queue() string                              { return "" }
func (s *Subscription) Topic() string                              { return "" }
func (s *Subscription) Close(ctx context.Context) error            { return nil }
func (s *Subscription) Remove(ctx context.Context) error           { return nil }
func (s *Subscription) Done() <-chan struct{}                      { return nil }
func (b *Bus) Run(ctx context.Context) error                       { return nil }
func (b *Bus) Running() <-chan struct{}                            { return nil }
func (b *Bus) Close(ctx context.Context) error                     { return nil }
func (b *Bus) Ready(ctx context.Context) error                     { return nil }
func (b *Bus) Topics(ctx context.Context) ([]TopicInfo, error)     { return nil, nil }
func (b *Bus) Router() *message.Router                             { return nil }
func (b *Bus) Publisher() message.Publisher                        { return nil }
func (b *Bus) Subscriber(o SubscriptionOptions) message.Subscriber { return nil }
