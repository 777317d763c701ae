package accounts

import (
	"context"
	"errors"
	"fmt"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// announce tells the bus what has happened, in the order of each account's events. The id is that of the event in the log, so
// that one which is told twice is known by it. A broker that is away is waited for.
func (s *Service) announce(ctx context.Context, e eventstore.Recorded) error {
	event, err := s.types.Decode(e)
	if err != nil {
		return err
	}
	topic, message := told(e.Stream.ID, event)
	if message == nil {
		return nil
	}
	_, err = s.cfg.Bus.PublishWith(ctx, topic, message, bus.PublishOptions{MessageID: e.ID, PartitionKey: e.Stream.ID})
	if err != nil && !errors.Is(err, bus.ErrInvalid) {
		return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
	}
	return err
}

// told is what others hear of an event; nil: nothing.
func told(accountID string, event any) (topic string, message bus.Event) {
	switch e := event.(type) {
	case registered:
		return events.TopicAccountCreated, &events.AccountCreatedEvent{
			AccountID: accountID, Email: e.Email, DisplayName: e.DisplayName, Roles: e.Roles, ExpectsCredentials: e.Expects,
		}
	case renamed:
		return events.TopicAccountUpdated, &events.AccountUpdatedEvent{AccountID: accountID, ChangedFields: []string{"displayName"}, DisplayName: e.DisplayName}
	case emailChanged:
		return events.TopicAccountUpdated, &events.AccountUpdatedEvent{AccountID: accountID, ChangedFields: []string{"email"}, Email: e.Email}
	case rolesChanged:
		return events.TopicAccountUpdated, &events.AccountUpdatedEvent{AccountID: accountID, ChangedFields: []string{"roles"}, Roles: e.Roles}
	case deleted:
		return events.TopicAccountDeleted, &events.AccountDeletedEvent{AccountID: accountID, Reason: e.Reason}
	case erased:
		return events.TopicAccountErased, &events.AccountErasedEvent{AccountID: accountID}
	default:
		return "", nil
	}
}
