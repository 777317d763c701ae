package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// A Feed carries the mesh's changes over the bus, as the events of the mesh.endpoint.* topics and as
// FullServiceMappingsEvent. Each watcher has queues of its own, so every node hears every change.
type Feed struct {
	bus *bus.Bus
	log *slog.Logger
}

// NewFeed returns a feed over a bus, which the caller keeps and closes. A nil logger logs nothing.
func NewFeed(b *bus.Bus, log *slog.Logger) *Feed {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Feed{bus: b, log: log}
}

var _ mesh.Feed = (*Feed)(nil)

// Announce implements mesh.Feed.
func (f *Feed) Announce(ctx context.Context, c mesh.Change) error {
	topic, event, err := eventOf(c, time.Now())
	if err != nil {
		return err
	}
	// The next change supersedes this one, and directories refresh by themselves: no need for the broker's disk.
	_, err = f.bus.PublishWith(ctx, topic, event, bus.PublishOptions{Transient: true})
	if errors.Is(err, bus.ErrUnavailable) || errors.Is(err, bus.ErrNotConfirmed) || errors.Is(err, bus.ErrClosed) {
		return fmt.Errorf("%w: %w", mesh.ErrUnavailable, err)
	}
	return err
}

// eventOf is the event that carries a change. Two of the events give a reason, which follows from the change and from how
// long the instance has been quiet.
func eventOf(c mesh.Change, now time.Time) (topic string, event bus.Event, err error) {
	quiet := now.Sub(c.Endpoint.LastSeen) >= mesh.DegradedAfter
	switch c.Kind {
	case mesh.ChangeRegistered:
		return events.TopicMeshEndpointRegistered, &events.MeshEndpointRegisteredEvent{MeshEndpoint: wire(c.Endpoint)}, nil
	case mesh.ChangeDegraded:
		e := &events.MeshEndpointDegradedEvent{MeshEndpoint: wire(c.Endpoint), Reason: events.MeshEndpointDegradedReasonReported}
		switch {
		case quiet:
			e.Reason = events.MeshEndpointDegradedReasonMissedHeartbeats
		case c.Unreachable:
			e.Reason = events.MeshEndpointDegradedReasonUnreachable
		}
		return events.TopicMeshEndpointDegraded, e, nil
	case mesh.ChangeDeregistered:
		e := &events.MeshEndpointDeregisteredEvent{
			AppID: c.Endpoint.AppID, InstanceID: c.Endpoint.InstanceID, Reason: events.MeshEndpointDeregisteredReasonRequested,
		}
		if quiet {
			e.Reason = events.MeshEndpointDeregisteredReasonExpired
		}
		e.Timestamp = c.Endpoint.LastSeen // what orders it among the instance's other changes
		return events.TopicMeshEndpointDeregistered, e, nil
	case mesh.ChangeMappings:
		return events.TopicFullServiceMappings, &events.FullServiceMappingsEvent{
			Mappings: c.Mappings.Services, DefaultAppID: c.Mappings.DefaultAppID, Version: c.Mappings.Version,
			SourceInstanceID: c.Mappings.SourceInstanceID,
		}, nil
	default:
		return "", nil, fmt.Errorf("membership: no event carries a change of kind %q", c.Kind)
	}
}

func wire(e mesh.Endpoint) events.MeshEndpoint {
	return events.MeshEndpoint{
		AppID: e.AppID, InstanceID: e.InstanceID, Host: e.Host, Port: e.Port, ExternalHost: e.ExternalHost,
		Status: events.EndpointStatus(e.Status), LoadPercent: e.LoadPercent, MaxConnections: e.MaxConnections,
		CurrentConnections: e.CurrentConnections, LastSeen: e.LastSeen, RegisteredAt: e.RegisteredAt, Services: e.Services,
		Zone: e.Zone,
	}
}

func endpoint(e events.MeshEndpoint) mesh.Endpoint {
	return mesh.Endpoint{
		AppID: e.AppID, InstanceID: e.InstanceID, Host: e.Host, Port: e.Port, ExternalHost: e.ExternalHost,
		Status: mesh.Status(e.Status), LoadPercent: e.LoadPercent, MaxConnections: e.MaxConnections,
		CurrentConnections: e.CurrentConnections, LastSeen: e.LastSeen, RegisteredAt: e.RegisteredAt, Services: e.Services,
		Zone: e.Zone,
	}
}

// Watch implements mesh.Feed.
func (f *Feed) Watch(ctx context.Context, fn func(mesh.Change)) (stop func(), err error) {
	w := &watch{log: f.log}
	defer func() { //nolint:contextcheck // a context that has ended does not keep what it began from being ended
		if err != nil {
			w.stop()
			if errors.Is(err, bus.ErrUnavailable) || errors.Is(err, bus.ErrClosed) {
				err = fmt.Errorf("%w: %w", mesh.ErrUnavailable, err)
			}
		}
	}()
	o := bus.SubscriptionOptions{AutoAck: true, NoDeadLetter: true, Service: "mesh"}
	if err := add(ctx, w, f.bus, events.TopicMeshEndpointRegistered, o, func(e *events.MeshEndpointRegisteredEvent) {
		fn(mesh.Change{Kind: mesh.ChangeRegistered, Endpoint: endpoint(e.MeshEndpoint)})
	}); err != nil {
		return nil, err
	}
	if err := add(ctx, w, f.bus, events.TopicMeshEndpointDegraded, o, func(e *events.MeshEndpointDegradedEvent) {
		fn(mesh.Change{Kind: mesh.ChangeDegraded, Endpoint: endpoint(e.MeshEndpoint),
			Unreachable: e.Reason == events.MeshEndpointDegradedReasonUnreachable})
	}); err != nil {
		return nil, err
	}
	if err := add(ctx, w, f.bus, events.TopicMeshEndpointDeregistered, o, func(e *events.MeshEndpointDeregisteredEvent) {
		fn(mesh.Change{Kind: mesh.ChangeDeregistered,
			Endpoint: mesh.Endpoint{AppID: e.AppID, InstanceID: e.InstanceID, LastSeen: e.Timestamp}})
	}); err != nil {
		return nil, err
	}
	if err := add(ctx, w, f.bus, events.TopicFullServiceMappings, o, func(e *events.FullServiceMappingsEvent) {
		fn(mesh.Change{Kind: mesh.ChangeMappings, Mappings: mesh.Mappings{Services: e.Mappings,
			DefaultAppID: e.DefaultAppID, Version: e.Version, SourceInstanceID: e.SourceInstanceID}})
	}); err != nil {
		return nil, err
	}
	return w.stop, nil
}

// watch is the subscriptions of one watcher.
type watch struct {
	log           *slog.Logger
	subscriptions []*bus.Subscription
	gate          sync.RWMutex // held for reading while the watcher is called
	stopped       bool
}

func add[E any](ctx context.Context, w *watch, b *bus.Bus, topic string, o bus.SubscriptionOptions, fn func(*E)) error {
	s, err := bus.Subscribe(ctx, b, topic, func(_ context.Context, e *E) error {
		w.gate.RLock()
		defer w.gate.RUnlock()
		if !w.stopped {
			fn(e)
		}
		return nil
	}, o)
	if err != nil {
		return fmt.Errorf("membership: watch %s: %w", topic, err)
	}
	w.subscriptions = append(w.subscriptions, s)
	return nil
}

// stop ends the watch. Once it has the gate, the watcher is not called again, whatever the broker still delivers.
func (w *watch) stop() {
	w.gate.Lock()
	w.stopped = true
	w.gate.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var closing sync.WaitGroup
	for _, s := range w.subscriptions {
		closing.Go(func() {
			if err := s.Close(ctx); err != nil {
				w.log.Debug("a subscription of the mesh's feed did not close; it ends with its connection", "error", err)
			}
		})
	}
	closing.Wait()
}
