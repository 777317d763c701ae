package bus

import (
	"context"
	"time"
)

// An Event is a message body: one flat JSON object that has eventId and timestamp among its members. Publish stamps
// the value it is given: do not publish one value from two goroutines at a time.
type Event interface {
	// EventName is the type's name on the wire, such as "AccountCreatedEvent".
	EventName() string
	// Stamp gives the event this id and time unless it has its own, and returns those in force.
	Stamp(id string, at time.Time) (eventID string, timestamp time.Time)
}

// Received is a delivery as a raw handler sees it. Its map and slice are the handler's to read, not to change.
type Received struct {
	Topic         string // what it was published under, also where the subscription is to a pattern
	MessageID     string // the event's id; the same on each redelivery
	Type          string
	ContentType   string
	CorrelationID string
	Timestamp     time.Time
	Attempt       int // 1 for the first delivery to this queue
	Headers       map[string]string
	Body          []byte
}

// ReceivedFrom returns the delivery that a handler's context belongs to, for typed and plain Watermill handlers that
// want more than the event.
func ReceivedFrom(ctx context.Context) (*Received, bool) {
	w := workFrom(ctx)
	if w == nil {
		return nil, false
	}
	return w.received(), true
}

// The headers of a message. Those that begin with x- are on dead letters only.
const (
	HeaderTraceParent   = "traceparent"    // W3C trace context
	HeaderTraceState    = "tracestate"     // W3C trace context
	HeaderCausationID   = "causation-id"   // the id of the event whose handler published this one
	HeaderPartitionKey  = "partition-key"  // events with the same key are handled in order
	HeaderSourceService = "source-service" // the publisher's AppID

	// HeaderEnvelope is on a message whose body is a CloudEvent as Dapr's apps write and read them: between a driver and package daprtopics
	// alone. On the wire of RabbitMQ the place of the message says it.
	HeaderEnvelope = "dapr-envelope"

	HeaderOriginalTopic      = "x-original-topic"
	HeaderOriginalExchange   = "x-original-exchange"
	HeaderOriginalQueue      = "x-original-queue"      // the subscription that gave up; a replay can go to it alone
	HeaderOriginalExpiration = "x-original-expiration" // as time.Duration.String; a dead letter itself does not expire
	HeaderRetryCount         = "x-retry-count"         // redeliveries before it was given up
	HeaderQueuedAt           = "x-queued-at"           // RFC 3339, when it was published
	HeaderDiscardedAt        = "x-discarded-at"        // RFC 3339, when it was given up
	HeaderDiscardReason      = "x-discard-reason"      // one of the Discard reasons
	HeaderException          = "x-exception"           // the last error's text, at most 4 KiB
	HeaderOmittedHeaders     = "x-omitted-headers"     // names of headers that the letter lacks: no broker would take them
)

// Why an event was dead-lettered, the values of HeaderDiscardReason.
const (
	DiscardMaxRetries  = "max-retries-exceeded"
	DiscardPermanent   = "permanent"
	DiscardUndecodable = "undecodable"
	DiscardExpired     = "expired"
)
