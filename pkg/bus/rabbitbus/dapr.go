package rabbitbus

import (
	"context"
	"errors"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// DaprPlace is where Dapr keeps a topic: an exchange of its name, a fanout, to which any key leads. One that is not there is declared as
// Config says that Dapr declares it.
func (d *Driver) DaprPlace(topic string) (exchange, key string) {
	d.topology.mu.Lock()
	defer d.topology.mu.Unlock()
	d.topology.daprs[topic] = true
	return topic, ""
}

func (t *topology) isDaprs(exchange string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.daprs[exchange]
}

// Unbind takes a queue off an exchange. Where either is not there, or there is no such binding, nothing happens.
func (d *Driver) Unbind(ctx context.Context, queue string, from bus.Binding) error {
	exchange := d.topology.exchange(from.Exchange)
	d.topology.bindings.forget(func(r route) bool { return r == route{queue, from.Pattern, exchange} })
	for {
		err := d.consuming.do(ctx, func(_ *session, admin *amqp.Channel) error {
			return admin.QueueUnbind(queue, from.Pattern, exchange, nil)
		})
		if errors.Is(err, errLost) {
			continue
		}
		if err != nil && !answered(err, amqp.NotFound) {
			return fmt.Errorf("unbind queue %q from exchange %q: %w", queue, exchange, err)
		}
		return nil
	}
}

// OtherReaders are what is bound to the exchange of Dapr's topic and is no queue of the bus: queues, and exchanges, whose names then begin with
// "exchange ". A queue of the bus is known by its dead-letter exchange. It asks the management API: without Config.ManagementURL it is
// bus.ErrInvalid, since AMQP has no such question.
func (d *Driver) OtherReaders(ctx context.Context, topic string) ([]bus.QueueInfo, error) {
	if d.management == nil {
		return nil, fmt.Errorf("%w: who is bound to exchange %q only RabbitMQ's management API tells: set ManagementURL", bus.ErrInvalid, topic)
	}
	return d.management.bound(ctx, topic, d.cfg.DeadLetterExchange)
}

// bound lists what is bound to an exchange, without the queues whose dead letters go to one.
func (m *management) bound(ctx context.Context, exchange, letters string) ([]bus.QueueInfo, error) {
	var queues []struct {
		Name      string         `json:"name"`
		Arguments map[string]any `json:"arguments"`
		Ready     int64          `json:"messages_ready"`
		Consumers int64          `json:"consumers"`
	}
	if err := m.get(ctx, "/api/queues/", &queues); err != nil {
		return nil, err
	}
	var bindings []struct {
		Source      string `json:"source"`
		Destination string `json:"destination"`
		Kind        string `json:"destination_type"`
		Key         string `json:"routing_key"`
	}
	if err := m.get(ctx, "/api/bindings/", &bindings); err != nil {
		return nil, err
	}
	var list []bus.QueueInfo
	for _, b := range bindings {
		if b.Source != exchange {
			continue
		}
		info := bus.QueueInfo{Name: b.Destination, Topic: b.Key, Exchange: exchange}
		ours := false
		if b.Kind != "queue" {
			info.Name = "exchange " + b.Destination
		}
		for _, q := range queues {
			if b.Kind == "queue" && q.Name == b.Destination {
				ours = q.Arguments["x-dead-letter-exchange"] == letters
				info.Messages, info.Consumers = q.Ready, q.Consumers
			}
		}
		if !ours {
			list = append(list, info)
		}
	}
	return list, nil
}
