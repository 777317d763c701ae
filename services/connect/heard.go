package connect

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
)

const (
	listenTimeout = 10 * time.Second
	listenPause   = time.Second
	heardAtOnce   = 64
)

// listen subscribes this node to what every node has to hear. It tries until that stands: a node that does not hear of ends takes no
// connections.
func (s *Service) listen(ctx context.Context) {
	for {
		err := s.subscribe(ctx)
		if err == nil {
			s.listening.Store(true)
			return
		}
		s.cfg.Logger.DebugContext(ctx, "the gateway cannot listen yet", slog.Any("error", err))
		s.waits.Store(true)
		select {
		case <-time.After(listenPause):
		case <-ctx.Done():
			return
		}
	}
}

// subscribe gives the node queues of its own. They outlive a connection to the broker that is lost, so that no end is missed, and expire
// some time after the node.
func (s *Service) subscribe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, listenTimeout)
	defer cancel()
	o := bus.SubscriptionOptions{
		Service: s.Name(), Group: "connect." + s.cfg.InstanceID, Durable: true, Expires: s.cfg.ReconnectWithin,
		PrefetchCount: heardAtOnce, NoDeadLetter: true,
	}
	subscriptions := []func() (*bus.Subscription, error){
		func() (*bus.Subscription, error) {
			return bus.Subscribe(ctx, s.cfg.Bus, events.TopicSessionInvalidated, s.invalidated, o)
		},
		func() (*bus.Subscription, error) {
			return bus.Subscribe(ctx, s.cfg.Bus, events.TopicPermissionsSessionCapabilities, s.capabilities, o)
		},
		func() (*bus.Subscription, error) {
			return bus.Subscribe(ctx, s.cfg.Bus, events.TopicPermissionsCapabilitiesChanged, s.capabilitiesOfMany, o)
		},
		func() (*bus.Subscription, error) {
			return bus.Subscribe(ctx, s.cfg.Bus, events.TopicSessionOverflowed, s.overflowedElsewhere, o)
		},
		func() (*bus.Subscription, error) {
			return bus.Subscribe(ctx, s.cfg.Bus, events.TopicSessionConnected, s.connectedElsewhere, o)
		},
		func() (*bus.Subscription, error) {
			return bus.Subscribe(ctx, s.cfg.Bus, events.TopicSessionReconnected, s.reconnectedElsewhere, o)
		},
	}
	for _, subscribe := range subscriptions[len(s.listeners):] {
		l, err := subscribe()
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, l)
	}
	return s.hearOverflows(ctx)
}

// forget has it remembered that sessions have ended, and removes their queues. One node does it, also for sessions that nobody holds.
func (s *Service) forget(ctx context.Context, e *events.SessionInvalidatedEvent) error {
	var errs []error
	for _, id := range e.SessionIDs {
		anew, err := s.records.end(ctx, id)
		errs = append(errs, err)
		if s.held.get(id) == nil {
			errs = append(errs, s.cfg.Broker.DeleteQueue(ctx, queueName(id, anew)))
		}
	}
	return errors.Join(errs...)
}

// invalidated closes the connections of sessions that have ended. Each node does it; the record comes first, so that who is about to
// connect here finds it, also where nobody is connected now.
func (s *Service) invalidated(ctx context.Context, e *events.SessionInvalidatedEvent) error {
	var errs []error
	for _, id := range e.SessionIDs {
		_, err := s.records.end(ctx, id)
		errs = append(errs, err)
		v := s.held.get(id)
		switch {
		case v == nil:
		case e.DisconnectClients:
			v.close(over(string(e.Reason)))
		default:
			v.revoke()
		}
	}
	return errors.Join(errs...)
}

func over(why string) ending {
	return ending{code: CloseEnded, reason: "the session has ended: " + why, told: events.SessionDisconnectedReasonInvalidated}
}

// capabilities gives a connection its manifest, if it is newer than the one that it has.
func (s *Service) capabilities(_ context.Context, e *events.SessionCapabilitiesEvent) error {
	if v := s.held.get(e.SessionID); v != nil && !v.knows(e.Version) { // most have come with those of many
		v.allow(e.Version, endpointsOf(e.Capabilities))
	}
	return nil
}

// capabilitiesOfMany does it for several connections that may do the same.
func (s *Service) capabilitiesOfMany(_ context.Context, e *events.CapabilitiesChangedEvent) error {
	endpoints := endpointsOf(e.Capabilities)
	for _, of := range e.Sessions {
		if v := s.held.get(of.SessionID); v != nil {
			v.allow(of.Version, endpoints)
		}
	}
	return nil
}

// knows reports whether the manifest is of this version, or a newer one.
func (v *session) knows(version int64) bool {
	now := v.manifest.Load()
	return now != nil && now.version >= version
}

// allow replaces the manifest, and tells the client, in the order of versions.
func (v *session) allow(version int64, endpoints []endpoint) {
	v.telling.Lock()
	defer v.telling.Unlock()
	if v.knows(version) {
		return
	}
	if v.revoked { // it was on its way when the session ended
		endpoints = nil
	}
	m := newManifest(v.record.Salt, version, endpoints)
	v.manifest.Store(m)
	if v.greeted {
		_ = v.text(textPush{Manifest: m.text()})
	}
}

// revoke allows a session that has ended nothing any more. Its connection is closed when its record is next looked at.
func (v *session) revoke() {
	v.telling.Lock()
	defer v.telling.Unlock()
	v.revoked = true
	v.manifest.Store(nil)
}

// greet sends the first message, and the manifest if it came before.
func (v *session) greet(h hello) {
	v.telling.Lock()
	defer v.telling.Unlock()
	_ = v.text(textPush{Hello: &h})
	v.greeted = true
	if m := v.manifest.Load(); m != nil {
		_ = v.text(textPush{Manifest: m.text()})
	}
}

func (s *Service) connectedElsewhere(ctx context.Context, e *events.SessionConnectedEvent) error {
	return s.takenOver(ctx, e.SessionID, e.InstanceID)
}

func (s *Service) reconnectedElsewhere(ctx context.Context, e *events.SessionReconnectedEvent) error {
	return s.takenOver(ctx, e.SessionID, e.InstanceID)
}

// takenOver closes a connection whose session has a newer one on another node. The event may be late: the record decides.
func (s *Service) takenOver(ctx context.Context, sessionID, instanceID string) error {
	v := s.held.get(sessionID)
	if v == nil || instanceID == s.cfg.InstanceID {
		return nil
	}
	return s.look(ctx, v)
}

// look ends a connection that the record does not have any more.
func (s *Service) look(ctx context.Context, v *session) error {
	now, err := s.records.keep(ctx, v.id, v.record, s.cfg.recordLife())
	switch {
	case errors.Is(err, errReplaced):
		v.close(v.replacedBy(now))
	case errors.Is(err, errEnded):
		v.close(over("logged out"))
	case errors.Is(err, errLost):
		v.close(lost())
	default:
		return err
	}
	return nil
}

// replacedBy is the ending for a newer connection. One that has begun anew has a queue of its own.
func (v *session) replacedBy(now record) ending {
	return ending{code: CloseReplaced, reason: "the session has a newer connection", silent: true, leftover: now.Anew > v.record.Anew}
}
