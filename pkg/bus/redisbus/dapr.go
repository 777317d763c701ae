package redisbus

import (
	"context"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// DaprPlace is where Dapr keeps a topic: the stream of its name, which is the bus's stream too if that has the same name for it. The entries
// tell by their fields whose they are: Dapr's have data, the bus's a payload. From now on Dapr's are read in that stream; in others they are
// entries that cannot be read.
func (d *Driver) DaprPlace(topic string) (exchange, key string) {
	d.daprs.Store(topic, true)
	return "", topic
}

func (d *Driver) isDaprs(stream string) bool {
	_, found := d.daprs.Load(stream)
	return found
}

// Unbind does nothing: a queue that reads a topic of Dapr's reads the bus's own.
func (d *Driver) Unbind(context.Context, string, bus.Binding) error { return nil }

// OtherReaders are the groups of the stream that are no queues of the bus.
func (d *Driver) OtherReaders(ctx context.Context, topic string) ([]bus.QueueInfo, error) {
	queues, err := d.registry.known(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: list the queues: %w", bus.ErrUnavailable, err)
	}
	groups, err := d.client.XInfoGroups(ctx, topic).Result()
	if noStream(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: list the groups of stream %q: %w", bus.ErrUnavailable, topic, err)
	}
	var list []bus.QueueInfo
	for _, g := range groups {
		if _, ours := queues[g.Name]; !ours {
			list = append(list, bus.QueueInfo{Name: g.Name, Topic: topic, Messages: max(0, g.Lag), Consumers: g.Consumers})
		}
	}
	return list, nil
}
