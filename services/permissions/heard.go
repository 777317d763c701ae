package permissions

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/problem"
)

// subscribe has the service hear of services and sessions.
func (s *Service) subscribe() error {
	o := bus.SubscriptionOptions{Service: s.Name()}
	b := s.cfg.Bus
	return errors.Join(
		bus.Handle(b, events.TopicPermissionsServiceRegistered, "replace-service", s.serviceRegistered, o),
		bus.Handle(b, events.TopicPermissionsSessionStateChanged, "change-state", s.stateChanged, o),
		bus.Handle(b, events.TopicSessionConnected, "add-session", s.connected, o),
		bus.Handle(b, events.TopicSessionUpdated, "update-session", s.updated, o),
		bus.Handle(b, events.TopicSessionReconnected, "resume-session", s.reconnected, o),
		bus.Handle(b, events.TopicSessionDisconnected, "remove-session", s.disconnected, o),
		bus.Handle(b, events.TopicSessionInvalidated, "revoke-sessions", s.invalidated, o),
	)
}

// when is the time of an event, and now for one that says it is of later: whose clock is ahead must not keep out what comes after.
func (s *Service) when(e time.Time) time.Time {
	if now := s.cfg.Now().UTC(); e.After(now) {
		return now
	}
	return e
}

func (s *Service) serviceRegistered(ctx context.Context, e *events.PermissionsServiceRegisteredEvent) error {
	_, err := s.register(ctx, e.ServiceName, registration{AppID: e.AppID, Version: e.Version, At: s.when(e.Timestamp), Endpoints: e.Endpoints})
	if _, wrong := errors.AsType[*problem.Problem](err); wrong {
		return bus.Permanent(err)
	}
	return err
}

// updated gives a session its roles, unless newer ones were heard of.
func (s *Service) updated(ctx context.Context, e *events.SessionUpdatedEvent) error {
	roles := ordered(e.Roles)
	return s.update(ctx, e.SessionID, func(v *entry) (bool, bool) {
		if v.Ended || e.Version < v.RolesVersion {
			return false, false
		}
		v.AccountID, v.Roles, v.RolesVersion = e.AccountID, roles, e.Version
		return true, false
	})
}

// connected sends what the session may call to who holds its connection now.
func (s *Service) connected(ctx context.Context, e *events.SessionConnectedEvent) error {
	roles := ordered(e.Roles)
	return s.update(ctx, e.SessionID, func(v *entry) (bool, bool) {
		if v.Ended {
			return false, false
		}
		if v.AccountID == "" { // session.updated is on its way
			v.AccountID, v.Roles = e.AccountID, roles
		}
		return true, true
	})
}

func (s *Service) reconnected(ctx context.Context, e *events.SessionReconnectedEvent) error {
	return s.update(ctx, e.SessionID, func(v *entry) (bool, bool) { return !v.Ended, true })
}

// disconnected forgets in which states a session was that does not wait for its client: it is in none now. Its roles stay until it ends.
func (s *Service) disconnected(ctx context.Context, e *events.SessionDisconnectedEvent) error {
	if e.Reconnectable {
		return nil
	}
	at := s.when(e.Timestamp)
	return s.update(ctx, e.SessionID, func(v *entry) (bool, bool) {
		if v.Ended || !at.After(v.Left) {
			return false, false
		}
		v.Left = at
		for service, was := range v.States {
			if was.At.Before(at) {
				v.States[service] = stateOf{At: at}
			}
		}
		return true, false
	})
}

func (s *Service) stateChanged(ctx context.Context, e *events.SessionStateChangeEvent) error {
	if e.SessionID == "" || e.ServiceName == "" {
		return bus.Permanent(errors.New("a change of state needs a session and a service"))
	}
	at := s.when(e.Timestamp)
	return s.update(ctx, e.SessionID, func(v *entry) (bool, bool) {
		if v.Ended || v.States[e.ServiceName].At.After(at) || v.Left.After(at) {
			return false, false // it is late
		}
		if v.States == nil {
			v.States = map[string]stateOf{}
		}
		v.States[e.ServiceName] = stateOf{Name: e.NewState, At: at}
		return true, false
	})
}

// invalidated takes everything from sessions that have ended.
func (s *Service) invalidated(ctx context.Context, e *events.SessionInvalidatedEvent) error {
	return s.end(ctx, e.AccountID, e.SessionIDs)
}

func (s *Service) end(ctx context.Context, accountID string, sessionIDs []string) error {
	var errs []error
	for _, id := range sessionIDs {
		errs = append(errs, s.update(ctx, id, func(v *entry) (bool, bool) {
			if v.Ended {
				return false, false
			}
			*v = entry{AccountID: accountID, Ended: true, Version: v.Version, Digest: v.Digest}
			return true, false
		}))
	}
	return errors.Join(errs...)
}

func ordered(roles []string) []string {
	roles = slices.Clone(roles)
	slices.Sort(roles)
	return slices.Compact(roles)
}
