package bus

import (
	"context"
	"time"
)

// A Driver is one broker: RabbitMQ, Redis Streams, or this process's memory.
//
// A driver is safe for concurrent use. It connects by itself and heals by itself: New of a driver does not fail
// because the broker is away, Publish and Subscribe wait for it until their context ends. It declares again, after
// each reconnection, all that it was told to declare. The Bus above it owns retries, dead letters, ordering by
// partition key, telemetry and the shape of events; the driver owns the wire.
type Driver interface {
	// Backend is the broker's kind as configuration and listings show it: "rabbitmq", "redis", "memory".
	Backend() string

	// Publish returns nil once the broker has taken the message over for every queue bound to it. It returns by the
	// context's deadline, also while the broker is blocked, away or restarting. ErrUnroutable: Mandatory, and no queue
	// was bound. ErrNotConfirmed: sent, and no answer by the deadline: it may or may not have arrived. ErrUnavailable:
	// never sent. Many calls may be under way at once; none waits for another's confirmation. The message is the driver's
	// from then on, to keep and to deliver.
	Publish(ctx context.Context, m *Message) error

	// Begin is Publish without the wait: it hands the message to the connection, and confirm, which must be called once,
	// waits until ctx ends for what Publish would return. Messages that one goroutine begins one after another arrive in
	// that order, unless the connection is lost under them. Begin itself waits only while the broker takes no messages.
	Begin(ctx context.Context, m *Message) (confirm func() error)

	// Redeliver puts a message into one queue alone, as its first delivery: Exchange and RoutingKey are what its reader
	// sees. It is as durable and as confirmed as Publish. ErrUnroutable: there is no such queue.
	Redeliver(ctx context.Context, queue string, m *Message) error

	// Letters opens the dead-letter store for reading, waiting until ctx ends for another reader to finish.
	Letters(ctx context.Context) (Letters, error)

	// Subscribe declares the queue and its bindings, and starts to consume. When it returns, what is published from
	// then on reaches the queue. The context bounds the call, not the consumer.
	Subscribe(ctx context.Context, q Queue) (Consumer, error)

	// Queues lists the queues that exist with their counts, those of other programs included where the broker can
	// tell.
	Queues(ctx context.Context) ([]QueueInfo, error)

	// DeleteQueue removes a queue of that name with what is in it, and ends its consumers. A queue that does not exist
	// is no error. (Subscription.Remove of a durable subscription needs it.)
	DeleteQueue(ctx context.Context, name string) error

	// Ready reports whether the broker can be published to now.
	Ready(ctx context.Context) error

	// Close ends consumers (their deliveries in work go back to the queue unless they are settled before the context
	// ends), waits for confirmations under way, and closes connections.
	Close(ctx context.Context) error
}

// Letters is one reading of the dead-letter store: the letters that were in it when it was opened, the oldest first. It
// belongs to one goroutine; the deliveries may be settled by others.
type Letters interface {
	// Count is how many letters there were when it was opened. Fewer may come: some expire meanwhile.
	Count() int64
	// Next returns the next letter, or io.EOF after the last. Ack removes it from the store; one that is not settled, or
	// requeued, keeps its place.
	Next(ctx context.Context) (Delivery, error)
	// Close ends the reading and lets the next reader in. Settle what is to be settled before.
	Close(ctx context.Context) error
}

// A Message is what travels: a body, its properties, and where it goes.
type Message struct {
	Exchange   string // empty: the bus's exchange
	RoutingKey string // the topic

	ID            string // the event's id
	Type          string // the event's name
	ContentType   string
	Timestamp     time.Time
	CorrelationID string
	Priority      uint8         // 0 to 9
	Expiration    time.Duration // 0: none. What expires in a queue is dead-lettered as "expired"
	Transient     bool          // not written to disk by the broker
	Mandatory     bool          // ErrUnroutable when no queue is bound
	Headers       map[string]string
	Body          []byte
}

// A Queue is what a subscription reads from.
type Queue struct {
	Name      string
	Bindings  []Binding
	Durable   bool // survives the broker and its consumers; otherwise it goes with its consumer
	Exclusive bool // one consumer, this connection's
	AutoAck   bool // the broker forgets a delivery when it is sent: at most once
	Prefetch  int  // deliveries not yet settled at a time, at least 1
	// Expires is how long a durable queue stays, with what is in it, while nobody reads it: 0 for ever. A driver has many such
	// queues, one of each client that may come back, and they share what queues that go with their consumers share.
	Expires time.Duration
	// MaxMessages and MaxBytes bound what waits in a queue that expires, deliveries under way not counted: 0 for as much as comes.
	// Of what is more the oldest go. RabbitMQ and the memory do it at once; on Redis Streams, where an event lies once for all its
	// queues, they are looked at from time to time, and nothing goes before the reader of Overflow has removed the queue.
	MaxMessages int
	MaxBytes    int64
	// Overflow is the queue that hears of it, if there is one: it gets a message with HeaderOverflowQueue and HeaderOverflowReason,
	// at least one for each time that the queue was looked at, and as many as one for each message that went.
	Overflow string
}

// A Binding sends what is published to an exchange under a matching key to a queue. Pattern is a topic or an AMQP
// topic pattern: "*" is one word, "#" any number.
type Binding struct {
	Exchange string // empty: the bus's exchange
	Pattern  string
}

// A Consumer reads one queue. After a broker's restart, a closed channel or a deleted queue it declares and consumes
// again by itself.
type Consumer interface {
	// Deliveries yields at most Queue.Prefetch unsettled deliveries at a time, in the queue's order. It is closed
	// after Close.
	Deliveries() <-chan Delivery
	// Close stops the flow, and returns when no more deliveries will come. What was delivered can still be settled
	// until the driver closes. A queue that is not durable is removed.
	Close(ctx context.Context) error
}

// A Delivery is one message from a queue, to be settled exactly once: later calls do nothing. A delivery whose
// connection is gone cannot be settled; the broker delivers it again.
type Delivery interface {
	Message() *Message
	// Attempt is 1 for the first delivery of this message to this queue, and counts Retry and broker redeliveries.
	Attempt() int
	// Ack removes it from the queue.
	Ack() error
	// Requeue gives it back, to be delivered again at once, here or elsewhere.
	Requeue() error
	// Retry has it delivered to this queue alone again after the delay, with Attempt one higher. It returns when the broker
	// has taken that over; the consumer's prefetch window is free meanwhile.
	Retry(ctx context.Context, delay time.Duration) error
}

// QueueInfo is a queue as the broker sees it.
type QueueInfo struct {
	Name      string
	Topic     string // the binding pattern, where it is known
	Exchange  string
	Messages  int64 // ready to be delivered
	Consumers int64
}
