package accounts

import (
	"context"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/relay"
)

// announced is what the relay publishes of an event. Its id is that of the event in the log, so that one which is told twice is known by it.
func (s *Service) announced(_ context.Context, e eventstore.Recorded) ([]relay.Message, error) {
	event, err := s.types.Decode(e)
	if err != nil {
		return nil, err
	}
	topic, message := told(e.Stream.ID, event)
	if message == nil {
		return nil, nil
	}
	return []relay.Message{{Topic: topic, Event: message}}, nil
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
