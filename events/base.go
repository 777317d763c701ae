package events

import "time"

// An Event is what a topic carries: a pointer to one of this package's event types.
type Event interface {
	// EventName returns the name of the type, which travels as the type property of the message.
	EventName() string

	// Stamp gives the event an id and a time unless it has its own; see [Base.Stamp].
	Stamp(id string, at time.Time) (eventID string, timestamp time.Time)
}

// Base is what every event has. It is embedded, so that its members stand beside the event's own in the JSON object.
// Both may be left empty: whoever publishes stamps the event.
type Base struct {
	// EventID identifies the event, and is the id of the message that carries it. A UUID, version 7 when Bannou makes it.
	EventID string `json:"eventId"`

	// Timestamp is when the event happened, in UTC.
	Timestamp time.Time `json:"timestamp"`
}

// Stamp sets the id and the time that the event does not have yet, and returns those that it has then. An event that is
// published a second time thus keeps its identity, and a receiver can tell that it has seen it. The time is made UTC.
func (b *Base) Stamp(id string, at time.Time) (eventID string, timestamp time.Time) {
	if b.EventID == "" {
		b.EventID = id
	}
	if b.Timestamp.IsZero() {
		b.Timestamp = at
	}
	b.Timestamp = b.Timestamp.UTC() // this drops the monotonic clock too: the event equals what its receiver decodes
	return b.EventID, b.Timestamp
}

// A Subscription says that a service listens to a topic.
type Subscription struct {
	// Topic is as "account.deleted".
	Topic string

	// Handler is the service and what it does, as "auth.invalidate-sessions". It names the queue, so no two services have the
	// same one: they would take each other's events.
	Handler string

	// Event is the name of the event's type, as "AccountDeletedEvent".
	Event string
}
