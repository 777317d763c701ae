package bus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
)

// Consumers are the handlers of a program, registered by topic and name and subscribed by one call. Each gets a queue
// of its own and with it every event of its topic, so one that fails, or is slow, neither repeats nor delays another.
//
// A registry tells which event a topic carries, and what is registered is held to it: a handler of another type is found
// when the program starts, not when the first event comes. Consumers are safe for concurrent use.
type Consumers struct {
	registry func(topic string) (Event, bool)

	mu      sync.Mutex
	list    []consumption
	refused []error // registrations: what was to be handled and is not must not be found out later
}

// A consumption is one handler, with what it takes to subscribe it.
type consumption struct {
	topic, name string
	options     SubscriptionOptions
	handle      func(b *Bus) error
}

// NewConsumers makes an empty set of handlers. The registry gives a new, empty event of the type that a topic carries,
// and false for a topic that it does not know; the generated events.New is one.
func NewConsumers[E Event](registry func(topic string) (E, bool)) *Consumers {
	return &Consumers{registry: func(topic string) (Event, bool) { return registry(topic) }}
}

// Consume registers a handler for the events of a topic; what is said at Handle holds for it. ErrDuplicateHandler: the
// topic has a handler of that name here. ErrUnknownTopic, ErrWrongEvent: the registry does not have the topic, or not
// with the event E.
func Consume[E any](c *Consumers, topic, name string, h func(context.Context, *E) error, o SubscriptionOptions) error {
	event, err := c.event(topic)
	if err != nil {
		return c.refuse(fmt.Errorf("handler %q: %w", name, err))
	}
	if _, same := any(event).(*E); !same {
		return c.refuse(fmt.Errorf("handler %q takes %s, and %q carries %s: %w", name, reflect.TypeFor[*E](), topic, reflect.TypeOf(event), ErrWrongEvent))
	}
	return c.add(consumption{topic: topic, name: name, options: o, handle: func(b *Bus) error { return Handle(b, topic, name, h, o) }})
}

// ConsumeAny registers a handler that is given each event as what the registry has for the topic it was published under.
// The topic may be a pattern: then the handler tells events apart by their type, and an event of a topic that the
// registry does not know goes to the dead letters as undecodable.
func (c *Consumers) ConsumeAny(topic, name string, h func(context.Context, Event) error, o SubscriptionOptions) error {
	if !strings.ContainsAny(topic, "*#") {
		if _, err := c.event(topic); err != nil {
			return c.refuse(fmt.Errorf("handler %q: %w", name, err))
		}
	}
	decoding := func(ctx context.Context, r *Received) error {
		event, err := c.event(r.Topic)
		if err != nil {
			return &undecodableError{err}
		}
		if err := json.Unmarshal(r.Body, event); err != nil {
			return &undecodableError{err}
		}
		return h(ctx, event)
	}
	return c.add(consumption{topic: topic, name: name, options: o, handle: func(b *Bus) error { return b.HandleRaw(topic, name, decoding, o) }})
}

// event is a new, empty event of the topic.
func (c *Consumers) event(topic string) (Event, error) {
	event, known := c.registry(topic)
	if !known {
		return nil, fmt.Errorf("topic %q: %w", topic, ErrUnknownTopic)
	}
	return event, nil
}

func (c *Consumers) add(added consumption) error {
	same := func(known consumption) bool { return known.topic == added.topic && known.name == added.name }
	c.mu.Lock()
	known := slices.ContainsFunc(c.list, same)
	if !known {
		c.list = append(c.list, added)
	}
	c.mu.Unlock()
	if known {
		return c.refuse(fmt.Errorf("handler %q on %q: %w", added.name, added.topic, ErrDuplicateHandler))
	}
	return nil
}

// refuse keeps an error for Subscribe, and returns it.
func (c *Consumers) refuse(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = append(c.refused, err)
	return err
}

// Subscribe has the bus handle all that is registered. First it checks every handler: when one was refused at its
// registration, or could not be subscribed, none is, and the error tells of all of them. The rest is as said at Handle. A
// second call on the same bus is ErrDuplicateHandler.
func (c *Consumers) Subscribe(b *Bus) error {
	c.mu.Lock()
	list, refused := slices.Clone(c.list), errors.Join(c.refused...)
	c.mu.Unlock()
	if refused != nil {
		return fmt.Errorf("no handler is subscribed: %w", refused)
	}
	if err := b.checkConsumptions(list); err != nil {
		return err
	}
	// Side by side, because on a bus that runs each waits for its queue.
	failures := make([]error, len(list))
	var subscribing sync.WaitGroup
	for i, one := range list {
		subscribing.Go(func() { failures[i] = one.handle(b) })
	}
	subscribing.Wait()
	return errors.Join(failures...)
}

// checkConsumptions finds what Handle would refuse, on this bus and among themselves, before anything is subscribed.
func (b *Bus) checkConsumptions(list []consumption) error {
	var failures []error
	if b.closing() {
		return fmt.Errorf("cannot subscribe handlers: %w", ErrClosed)
	}
	readers, handlers := b.readers()
	for _, one := range list {
		r, err := b.staticReading(one.topic, one.name, one.options)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		if _, taken := handlers[[2]string{one.topic, one.name}]; taken {
			failures = append(failures, fmt.Errorf("handler %q on %q: the bus has it already: %w", one.name, one.topic, ErrDuplicateHandler))
			continue
		}
		if reader, taken := readers[r.queue.Name]; taken {
			failures = append(failures, fmt.Errorf("handler %q on %q: queue %q is read by a handler on %q already: %w",
				one.name, one.topic, r.queue.Name, reader, ErrDuplicateHandler))
			continue
		}
		readers[r.queue.Name] = one.topic
	}
	return errors.Join(failures...)
}

// readers are the queues of the static handlers with their topics, and the handlers' topics and names.
func (b *Bus) readers() (queues map[string]string, handlers map[[2]string]struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	queues = make(map[string]string, len(b.static))
	for s := range b.static {
		queues[s.queue.Name] = s.topic
	}
	return queues, maps.Clone(b.handlers)
}
