package membership

import (
	"context"
	"log/slog"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// Circuits announce what a node's mesh client makes of instances, as MeshCircuitChangedEvent. Telling is not worth waiting for: while
// the bus is away, changes that no longer fit into a short queue are told to nobody.
type Circuits struct {
	source  string
	changes chan mesh.CircuitChange
	log     *slog.Logger
}

// circuitQueue is how many changes wait: those of a hundred instances that come and go.
const circuitQueue = 256

// NewCircuits makes circuits that name instanceID as the caller whose they are. They announce nothing before Run.
func NewCircuits(instanceID string, log *slog.Logger) *Circuits {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Circuits{source: instanceID, changes: make(chan mesh.CircuitChange, circuitQueue), log: log}
}

// Changed takes in a change. It is for mesh.ClientConfig.Circuits.
func (c *Circuits) Changed(change mesh.CircuitChange) {
	select {
	case c.changes <- change:
	default:
		c.log.Debug("the change of a circuit was not announced: too many wait", "appId", change.AppID, "instanceId", change.InstanceID)
	}
}

// Run announces until the context ends.
func (c *Circuits) Run(ctx context.Context, b *bus.Bus) {
	for {
		select {
		case <-ctx.Done():
			return
		case change := <-c.changes:
			c.announce(ctx, b, change)
		}
	}
}

func (c *Circuits) announce(ctx context.Context, b *bus.Bus, change mesh.CircuitChange) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	e := &events.MeshCircuitChangedEvent{
		AppID: change.AppID, InstanceID: change.InstanceID, PreviousState: events.CircuitState(change.Previous),
		State: events.CircuitState(change.State), Reason: change.Reason, SourceInstanceID: c.source,
	}
	if _, err := b.PublishWith(ctx, events.TopicMeshCircuitChanged, e, bus.PublishOptions{PartitionKey: change.AppID + "/" + change.InstanceID}); err != nil {
		c.log.DebugContext(ctx, "the change of a circuit was not announced", "appId", change.AppID, "instanceId", change.InstanceID, "error", err)
	}
}
