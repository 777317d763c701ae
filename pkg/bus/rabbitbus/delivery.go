package rabbitbus

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// delivery is one message from a queue.
type delivery struct {
	c       *consumer
	carrier *carrier
	raw     amqp.Delivery
	message *bus.Message
	attempt int
	settled atomic.Bool
}

var _ bus.Delivery = (*delivery)(nil)

func newDelivery(c *consumer, carrier *carrier, raw amqp.Delivery) *delivery {
	d := &delivery{c: c, carrier: carrier, raw: raw}
	d.message, d.attempt = fromDelivery(&d.raw)
	return d
}

func (d *delivery) Message() *bus.Message { return d.message }
func (d *delivery) Attempt() int          { return d.attempt }

// Ack removes the message from the queue.
func (d *delivery) Ack() error {
	if !d.settle() {
		return nil
	}
	return d.answer(d.carrier.acks.ack(d.raw.DeliveryTag))
}

// Requeue gives the message back.
func (d *delivery) Requeue() error {
	if !d.settle() {
		return nil
	}
	return d.answer(d.carrier.acks.nack(d.raw.DeliveryTag))
}

// Retry hands the message to a delay queue, and takes it off this one when the broker has confirmed that. The first one
// of a queue with a delay takes 1.5 s: until a crash of the broker would leave the new delay queue there. When it fails the delivery is not settled yet, and can be given back with Requeue.
func (d *delivery) Retry(ctx context.Context, delay time.Duration) error {
	if !d.c.q.AutoAck && d.settled.Load() {
		return nil
	}
	o := &outgoing{mandatory: true, publishing: d.again()}
	for {
		o.key = d.c.q.Name
		if delay > 0 {
			name, err := d.c.d.delays.ensure(ctx, d.c.d.publishing, d.c.q, roundDelay(delay))
			if errors.Is(err, errLost) {
				continue // ensure waits for the next connection
			}
			if err != nil {
				return fmt.Errorf("delay a message of queue %q: %w", d.c.q.Name, err)
			}
			o.key = name
		}
		err := d.c.d.retries.publish(ctx, o)
		if errors.Is(err, bus.ErrUnroutable) && delay > 0 {
			d.c.d.delays.forget(o.key) // somebody removed it
			if ctx.Err() == nil {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("delay a message of queue %q: %w", d.c.q.Name, err)
		}
		break
	}
	// The broker has the copy. If this cannot be said any more, the original comes again too: at least once.
	_ = d.Ack()
	return nil
}

// again is the message as it is to be delivered next: as it came, with what the default exchange and the delay queue
// would make forgotten written beside. The expiration is written there too, not kept: it would cut the delay short.
func (d *delivery) again() amqp.Publishing {
	headers := make(amqp.Table, len(d.raw.Headers)+6)
	for name, value := range d.raw.Headers {
		if !isDeathHeader(name) {
			headers[keptAs(name)] = value
		}
	}
	for name, value := range d.message.Headers { // the account of an earlier death stays readable
		name = keptAs(name)
		if _, found := headers[name]; (!found || name == bus.HeaderPostponed) && !isDeathHeader(name) {
			headers[name] = value
		}
	}
	describeReturn(headers, d.attempt+1, d.message)
	return amqp.Publishing{
		Headers:         headers,
		ContentType:     d.raw.ContentType,
		ContentEncoding: d.raw.ContentEncoding,
		DeliveryMode:    d.raw.DeliveryMode,
		Priority:        d.raw.Priority,
		CorrelationId:   d.raw.CorrelationId,
		ReplyTo:         d.raw.ReplyTo,
		MessageId:       d.raw.MessageId,
		Timestamp:       d.raw.Timestamp,
		Type:            d.raw.Type,
		AppId:           d.raw.AppId,
		Body:            d.raw.Body,
	}
}

// settle claims the right to answer. It is given once.
func (d *delivery) settle() bool { return d.settled.CompareAndSwap(false, true) }

// answer ends a settled delivery: its place in the prefetch window is free.
func (d *delivery) answer(err error) error {
	<-d.c.slots
	d.carrier.settled()
	if err != nil {
		return fmt.Errorf("the connection that delivered message %q is gone; the broker delivers it again: %w", d.message.ID, err)
	}
	return nil
}

// acknowledgeEarly settles a delivery before it is handed out, for a queue whose messages are delivered at most once.
// That bounds what is held here, which the protocol's own automatic acknowledgement does not.
func (d *delivery) acknowledgeEarly() error {
	d.settled.Store(true)
	err := d.carrier.acks.ackNow(d.raw.DeliveryTag)
	d.carrier.settled()
	return err
}
