package mesh

import (
	"context"
	"errors"
	"fmt"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// listen handles what programs say of themselves on the bus. A member of this suite has written the registry by itself;
// hearing of it once more changes nothing.
func (s *Service) listen(b *bus.Bus) error {
	const name = "mesh"
	own := bus.SubscriptionOptions{Service: name}
	consumers := bus.NewConsumers(events.New)
	if err := errors.Join(
		bus.Consume(consumers, events.TopicServiceRegistration, name, s.registered, own),
		bus.Consume(consumers, events.TopicServiceHeartbeats, name, s.heard, own),
		bus.Consume(consumers, events.TopicFullServiceMappings, name, s.remapped, own),
	); err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	if err := consumers.Subscribe(b); err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	return nil
}

// registered takes in an instance. It may have been on its way for a while, so its own time counts.
func (s *Service) registered(ctx context.Context, e *events.ServiceRegistrationEvent) error {
	return settled(s.cfg.Registry.Heartbeat(ctx, mesh.Endpoint{
		AppID: e.AppID, InstanceID: e.InstanceID, Host: e.Host, Port: e.Port, Services: e.Services,
		MaxConnections: e.MaxConnections, LastSeen: e.Timestamp,
	}))
}

// heard prolongs an instance's life.
func (s *Service) heard(ctx context.Context, e *events.ServiceHeartbeatEvent) error {
	return settled(s.cfg.Registry.Heartbeat(ctx, mesh.Endpoint{
		AppID: e.AppID, InstanceID: e.InstanceID, Host: e.Host, Port: e.Port, ExternalHost: e.ExternalHost,
		Status: mesh.Status(e.Status), LoadPercent: e.LoadPercent, MaxConnections: e.MaxConnections,
		CurrentConnections: e.CurrentConnections, Services: e.Services, LastSeen: e.Timestamp,
	}))
}

// remapped takes over mappings that another program decided on, if they are newer.
func (s *Service) remapped(ctx context.Context, e *events.FullServiceMappingsEvent) error {
	_, err := s.cfg.Registry.ApplyMappings(ctx, mesh.Mappings{Services: e.Mappings, DefaultAppID: e.DefaultAppID,
		Version: e.Version, SourceInstanceID: e.SourceInstanceID})
	return settled(err)
}

// settled marks what no retry mends: an announcement that breaks a rule goes to the dead letters at once.
func settled(err error) error {
	if errors.Is(err, mesh.ErrInvalid) {
		return bus.Permanent(err)
	}
	return err
}
