package daprtopics

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/internal/routes"
)

// A Topic says how one topic of the bus is shared.
type Topic struct {
	// Name is what Dapr calls the topic. Default: as the bus does.
	Name string
	// PubSub is the name of Dapr's component, which stands in envelopes. Default: "pubsub".
	PubSub string
	// Subscribe has subscriptions read what is published to Dapr's topic.
	Subscribe bool
	// Publish has what is published go to Dapr's topic, in an envelope, and nowhere else.
	Publish bool
}

// Config says which topics are shared.
type Config struct {
	Topics map[string]Topic // by the bus's topic
	Logger *slog.Logger     // is told of messages that are no envelopes. Default: nothing is logged
}

// A Sharer is a driver whose broker Dapr can use too.
type Sharer interface {
	bus.Driver
	// DaprPlace is where Dapr keeps a topic; no key: any leads there. It has the driver know that this is Dapr's. A message that is published there with bus.HeaderEnvelope, whose body is an envelope, is one
	// that Dapr's apps can read; one that comes from there has the header.
	DaprPlace(topic string) (exchange, key string)
	// Unbind takes a queue off a place. One that is not there is no error.
	Unbind(ctx context.Context, queue string, from bus.Binding) error
	// OtherReaders are the queues or groups at Dapr's topic that no program of the bus reads with.
	OtherReaders(ctx context.Context, topic string) ([]bus.QueueInfo, error)
}

// Driver is a driver that shares topics. It is safe for concurrent use.
type Driver struct {
	bus.Driver
	inner  Sharer
	log    *slog.Logger
	topics map[string]Topic
	places map[string]bus.Binding // where Dapr keeps them, by the bus's topic
	names  map[string]string      // topics of the bus by Dapr's names
}

var _ bus.Driver = (*Driver)(nil)

// New wraps a driver, which remains its maker's until Close.
func New(inner Sharer, cfg Config) (*Driver, error) {
	d := &Driver{Driver: inner, inner: inner, log: cfg.Logger, topics: maps.Clone(cfg.Topics), names: map[string]string{}, places: map[string]bus.Binding{}}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	for _, topic := range slices.Sorted(maps.Keys(cfg.Topics)) {
		t := cfg.Topics[topic]
		t.Name, t.PubSub = cmp.Or(t.Name, topic), cmp.Or(t.PubSub, "pubsub")
		if other, taken := d.names[t.Name]; taken {
			return nil, fmt.Errorf("%w: topics %q and %q are both %q to Dapr: name one of them", bus.ErrInvalid, other, topic, t.Name)
		}
		d.topics[topic], d.names[t.Name] = t, topic
		exchange, key := inner.DaprPlace(t.Name)
		d.places[topic] = bus.Binding{Exchange: exchange, Pattern: key}
	}
	return d, nil
}

// Publish sends an event of a topic with Publish to Dapr's place, in an envelope.
func (d *Driver) Publish(ctx context.Context, m *bus.Message) error { return d.Begin(ctx, m)() }

// Begin is Publish without the wait.
func (d *Driver) Begin(ctx context.Context, m *bus.Message) (confirm func() error) {
	t, shared := d.topics[m.RoutingKey]
	if !shared || !t.Publish || m.Exchange != "" {
		return d.inner.Begin(ctx, m)
	}
	wrapped := wrap(m, t)
	wrapped.Exchange, wrapped.RoutingKey = d.places[m.RoutingKey].Exchange, cmp.Or(d.places[m.RoutingKey].Pattern, m.RoutingKey)
	return d.inner.Begin(ctx, wrapped)
}

// Subscribe reads what the queue is bound to, and what Dapr's apps publish to such topics as have Subscribe.
func (d *Driver) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	var leave []bus.Binding
	bindings, shared := slices.Clone(q.Bindings), false
	for _, topic := range slices.Sorted(maps.Keys(d.topics)) {
		i := slices.IndexFunc(q.Bindings, func(b bus.Binding) bool { return b.Exchange == "" && matches(b.Pattern, topic) })
		if i < 0 {
			continue
		}
		shared = true
		t := d.topics[topic]
		b := d.places[topic]
		b.Pattern = cmp.Or(b.Pattern, q.Bindings[i].Pattern)
		switch {
		case t.Subscribe && !slices.Contains(bindings, b):
			bindings = append(bindings, b)
		case !t.Subscribe && b.Exchange != "":
			leave = append(leave, b)
		}
	}
	if !shared {
		return d.inner.Subscribe(ctx, q)
	}
	q.Bindings = bindings
	c, err := d.inner.Subscribe(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, b := range leave {
		if err := d.inner.Unbind(ctx, q.Name, b); err != nil {
			return nil, cmp.Or(err, c.Close(ctx))
		}
	}
	return d.emptying(c, q), nil
}

// matches reports whether a binding's pattern takes a topic.
func matches(pattern, topic string) bool {
	var tree routes.Tree[bool]
	tree.Add(pattern, true)
	return len(tree.Match(topic)) > 0
}

// Readers are the queues and groups at Dapr's place of a topic that are not the bus's: the apps of Dapr that are still subscribed, or that
// have left something behind. When there are none, native programs need not publish there any more.
func (d *Driver) Readers(ctx context.Context, topic string) ([]bus.QueueInfo, error) {
	t, shared := d.topics[topic]
	if !shared {
		return nil, fmt.Errorf("%w: topic %q is not shared with Dapr", bus.ErrInvalid, topic)
	}
	return d.inner.OtherReaders(ctx, t.Name)
}

// Shared lists the topics, sorted by the bus's name for them.
func (d *Driver) Shared() []string { return slices.Sorted(maps.Keys(d.topics)) }
