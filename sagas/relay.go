package sagas

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// HeaderUndoes names, on a command that undoes another one, the id of that one.
const HeaderUndoes = "undoes"

// relay publishes what turns have to be published, many at a time, in the order of each instance.
func (e *Engine) relay(f *family) (*eventstore.Subscription, error) {
	return e.cfg.Store.Subscribe(eventstore.SubscriptionConfig{
		Name: f.category() + ".relay", Category: f.category(), Partitions: e.cfg.Partitions, Lease: e.cfg.Lease, Poll: e.cfg.Poll,
		Await: e.cfg.Bus.AwaitReady, // a new broker has no queues of the handlers beside the sagas yet
		Begin: func(ctx context.Context, event eventstore.Recorded) func() error { return e.publish(ctx, f, &event) },
	})
}

// sending is what the relay looks at of a record.
type sending struct {
	Message struct {
		ID string `json:"id"`
	} `json:"message"`
	Instance struct {
		Correlation string `json:"correlation"`
	} `json:"instance"`
	Publish []Outgoing `json:"publish"`
}

// publish hands the events of a turn to the bus, and returns what waits for their confirmations.
func (e *Engine) publish(ctx context.Context, f *family, event *eventstore.Recorded) (end func() error) {
	var s sending
	if err := json.Unmarshal(event.Data, &s); err != nil {
		return func() error {
			return fmt.Errorf("%w: %w: event %d of %s is none of a saga: %w", eventstore.ErrPoison, state.ErrCorrupt, event.Version, event.Stream, err)
		}
	}
	if len(s.Publish) == 0 {
		return func() error { return nil }
	}
	waits := make([]func() error, len(s.Publish))
	for i := range s.Publish {
		waits[i] = e.send(ctx, &s, &s.Publish[i], event.Stream.ID)
	}
	return func() error {
		for i, wait := range waits {
			if err := e.sent(ctx, f, event, &s.Publish[i], wait()); err != nil {
				return err
			}
		}
		return nil
	}
}

// send hands one event to the bus.
func (e *Engine) send(ctx context.Context, s *sending, out *Outgoing, key string) (wait func() error) {
	headers := map[string]string{bus.HeaderCausationID: s.Message.ID}
	if out.Undoes != "" {
		headers[HeaderUndoes] = out.Undoes
	}
	published, err := e.cfg.Bus.PublishRawAsync(ctx, out.Topic, out.Body, bus.PublishOptions{
		MessageID: out.ID, Type: out.Type, CorrelationID: s.Instance.Correlation, PartitionKey: key, Headers: headers,
	})
	if err != nil {
		return func() error { return err }
	}
	return published.Wait
}

// sent enters what became of an event.
func (e *Engine) sent(ctx context.Context, f *family, event *eventstore.Recorded, out *Outgoing, err error) error {
	switch {
	case err == nil && out.Tell:
		// Each turn that issues it says so anew: what was said may have been entered where it could not be gone on with.
		_, err = e.deliver(ctx, f, event.Stream.ID, Message{ID: fmt.Sprintf("%s.%s.%d", out.ID, KindSent, event.Version), Kind: KindSent, Work: out.ID})
		return err
	case errors.Is(err, bus.ErrInvalid):
		return e.unsendable(ctx, f, event, out, err)
	case err != nil: // the broker is away: the event waits, and does not count as one that cannot be handled
		return fmt.Errorf("%w: publish %s: %w", state.ErrUnavailable, out.Topic, err)
	}
	return nil
}

// unsendable parks the instance of an event that no broker would take.
func (e *Engine) unsendable(ctx context.Context, f *family, event *eventstore.Recorded, out *Outgoing, failure error) error {
	reason := fmt.Sprintf("%s cannot be published: %v", out.Topic, failure)
	turn, err := e.deliver(ctx, f, event.Stream.ID, Message{ID: fmt.Sprintf("%s.unsendable.%d", out.ID, event.Version), Kind: kindPark, Work: out.ID, Body: failing(reason)})
	if err == nil && turn.Nothing {
		e.cfg.Logger.ErrorContext(ctx, "an event of a saga is lost: no broker would take it, and its instance is not to be parked",
			"saga", f.name, "key", event.Stream.ID, "reason", reason, "instance", turn.Reason)
	}
	return err
}
