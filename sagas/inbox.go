package sagas

import (
	"context"
	"errors"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// listen registers a handler for each topic of a saga. Its queue is shared by all processes that run the saga, whatever their app-id.
func (e *Engine) listen(f *family) error {
	for topic, source := range f.sources {
		err := e.cfg.Bus.HandleRaw(topic, "saga-"+f.name, func(ctx context.Context, r *bus.Received) error {
			return e.receive(ctx, f, source, r)
		}, bus.SubscriptionOptions{Group: categoryPrefix + f.name})
		if err != nil {
			return fmt.Errorf("sagas: saga %q: %w", f.name, err)
		}
	}
	return nil
}

// receive gives an event of the bus to the instance that it belongs to.
func (e *Engine) receive(ctx context.Context, f *family, source source, r *bus.Received) error {
	key, err := keyOf(source, r.Body)
	if err != nil {
		return bus.Permanent(err)
	}
	if key == "" {
		return e.settle(nothing(f.newest.policies.Unknown, "it names no instance"))
	}
	body, err := narrowed(source, r.Body)
	if err != nil {
		return bus.Permanent(err)
	}
	turn, err := e.deliver(ctx, f, key, Message{ID: r.MessageID, Kind: KindEvent, Topic: r.Topic, Body: body, Correlation: r.CorrelationID})
	switch {
	case err == nil:
		return e.settle(turn)
	case errors.Is(err, state.ErrInvalid), errors.Is(err, state.ErrCorrupt):
		return bus.Permanent(err)
	case errors.Is(err, state.ErrUnavailable), errors.Is(err, state.ErrOutcomeUnknown), errors.Is(err, ErrUnknownVersion):
		return bus.RetryAfter(err, e.cfg.Postpone)
	default:
		return err
	}
}

// settle is what the bus is told of a message that was decided on. One that parked the instance, or is kept, is in it.
func (e *Engine) settle(turn Turn) error {
	if turn.Policy == DeadLetter {
		return bus.Permanent(errors.New("the saga does not take the event: " + turn.Reason))
	}
	return nil
}

func keyOf(source source, body []byte) (key string, err error) {
	defer recovered(&err)
	key, err = source.key(body)
	if err == nil && len(key) > eventstore.MaxIDBytes {
		err = fmt.Errorf("the key of the instance has %d bytes, at most %d are allowed", len(key), eventstore.MaxIDBytes)
	}
	return key, err
}

// narrowed is what is entered of an event.
func narrowed(source source, body []byte) (_ []byte, err error) {
	if source.narrow == nil {
		return body, nil
	}
	defer recovered(&err)
	return source.narrow(body)
}
