package daprtopics

import (
	"cmp"
	"context"
	"maps"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// consumer takes events out of their envelopes on their way.
type consumer struct {
	inner bus.Consumer
	out   chan bus.Delivery
	ended chan struct{}
}

// emptying begins to. What has come and is not taken yet waits in a channel with room for all that may be unsettled, so that nothing is stuck
// on the way when the consumer is closed. What is acknowledged when it is handed out does not wait: it would be lost with the process.
func (d *Driver) emptying(inner bus.Consumer, q bus.Queue) *consumer {
	room := q.Prefetch
	if q.AutoAck {
		room = 0
	}
	c := &consumer{inner: inner, out: make(chan bus.Delivery, room), ended: make(chan struct{})}
	go func() {
		defer close(c.ended)
		defer close(c.out)
		for raw := range inner.Deliveries() {
			c.out <- d.empty(raw)
		}
	}()
	return c
}

func (c *consumer) Deliveries() <-chan bus.Delivery { return c.out }

// Close ends the flow; what has come before stays to be taken.
func (c *consumer) Close(ctx context.Context) error {
	err := c.inner.Close(ctx)
	if cap(c.out) == 0 {
		return err
	}
	select {
	case <-c.ended:
	case <-ctx.Done():
	}
	return err
}

// empty is a delivery as a native program would have sent it.
func (d *Driver) empty(raw bus.Delivery) bus.Delivery {
	m := raw.Message()
	topic := d.names[m.Exchange] // on RabbitMQ: the key there is its publisher's choice
	if m.Headers[bus.HeaderEnvelope] != "" {
		topic = cmp.Or(topic, d.names[m.RoutingKey])
	}
	if topic == "" {
		return raw
	}
	flat, err := unwrap(m)
	if err != nil {
		d.log.Warn("a message at Dapr's topic is no envelope, and is handled as it is", "topic", topic, "error", err)
	}
	flat.Exchange, flat.RoutingKey = "", topic
	return &delivery{Delivery: raw, message: flat}
}

// delivery is one that came in an envelope.
type delivery struct {
	bus.Delivery
	message *bus.Message
}

func (d *delivery) Message() *bus.Message { return d.message }

// Retry has the envelope delivered again, with what the bus notes of postponements.
func (d *delivery) Retry(ctx context.Context, delay time.Duration) error {
	if noted := d.message.Headers[bus.HeaderPostponed]; noted != "" {
		raw := d.Delivery.Message()
		headers := maps.Clone(raw.Headers)
		if headers == nil {
			headers = map[string]string{}
		}
		headers[bus.HeaderPostponed] = noted
		raw.Headers = headers
	}
	return d.Delivery.Retry(ctx, delay)
}
