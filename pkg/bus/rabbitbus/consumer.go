package rabbitbus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// consumer reads one queue, on one channel after another.
type consumer struct {
	d     *Driver
	q     bus.Queue
	tag   string
	out   chan bus.Delivery
	slots chan struct{} // taken by a delivery until it is settled
	again chan struct{} // has one slot: the queue was made anew

	ctx    context.Context //nolint:containedctx // a life of its own, not a call's: ends when the consumer is to stop
	cancel context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	broken error // what keeps it from consuming, for who asks
}

var _ bus.Consumer = (*consumer)(nil)

func newConsumer(d *Driver, q bus.Queue, tag string) *consumer {
	ctx, cancel := context.WithCancel(context.Background())
	return &consumer{
		d: d, q: q, tag: tag,
		out:   make(chan bus.Delivery, room(q)),
		slots: make(chan struct{}, q.Prefetch),
		again: make(chan struct{}, 1),
		ctx:   ctx, cancel: cancel,
		ended: make(chan struct{}),
	}
}

// room is how many deliveries may wait for whoever reads, who then takes one after another without a change of goroutines.
// What is acknowledged when it is handed out must not wait at all: it would be lost with the process.
func room(q bus.Queue) int {
	if q.AutoAck {
		return 0
	}
	return q.Prefetch
}

func (c *consumer) Deliveries() <-chan bus.Delivery { return c.out }

// Close stops the consumer. What was fetched and not handed out goes back to the queue.
func (c *consumer) Close(ctx context.Context) error {
	c.cancel()
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop consuming queue %q: %w; the broker notices when the connection ends", c.q.Name, context.Cause(ctx))
	}
}

// run consumes until Close. It tells ready when it does for the first time, or that the broker will not have it.
func (c *consumer) run(ready chan<- error) {
	defer close(c.ended)
	defer close(c.out)
	defer c.empty()
	pause := &backoff{first: 50 * time.Millisecond, most: 5 * time.Second}
	for {
		a, err := c.attach()
		switch {
		case c.ctx.Err() != nil:
			if err == nil {
				c.detach(a)
			}
			return
		case err != nil && ready != nil && isRefusal(err):
			ready <- err
			return
		case err != nil:
			c.setBroken(err)
			if !errors.Is(err, errLost) {
				c.d.cfg.Logger.Error("cannot consume", "queue", c.q.Name, "error", err)
			}
		default:
			c.setBroken(nil)
			if ready != nil {
				ready <- nil
				ready = nil
			}
			since := time.Now()
			c.deliver(a)
			if c.ctx.Err() != nil {
				c.detach(a)
				return
			}
			c.empty()
			a.carrier.left()
			c.d.cfg.Logger.Warn("lost a consumer; declaring its queue and consuming again", "queue", c.q.Name)
			if time.Since(since) > time.Second {
				pause.reset()
			}
		}
		if pause.sleep(c.ctx) != nil {
			return
		}
	}
}

// empty gives back what nobody took yet. After the loss of a connection that only frees its place: the broker delivers it
// again.
func (c *consumer) empty() {
	for {
		select {
		case d := <-c.out:
			_ = d.Requeue()
		default:
			return
		}
	}
}

func (c *consumer) setBroken(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = err
}

// trouble is what keeps the consumer from consuming, if anything.
func (c *consumer) trouble() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

// attachment is a consumer on a channel.
type attachment struct {
	carrier    *carrier
	deliveries <-chan amqp.Delivery
}

// passing reports whether the queue goes with this consumer, as those of sessions do.
func (c *consumer) passing() bool { return !c.q.Durable && c.q.Exclusive }

// oneOfMany reports whether the queue is a client's, of which there are thousands: it goes with this consumer, or expires
// some time after it.
func (c *consumer) oneOfMany() bool { return c.passing() || c.q.Expires > 0 }

// ask runs a request about the queue when its turn has come. Exchanges that are not ours are asked for in the link's turn.
func (c *consumer) ask(ctx context.Context, request func(s *session, ch *amqp.Channel) error) error {
	if c.oneOfMany() && c.d.topology.isOurs(c.q.Bindings) {
		return c.d.desks.serve(ctx, request)
	}
	return c.d.consuming.serve(ctx, request)
}

// attach declares the queue and starts to consume it. It waits for a connection while the consumer is not stopped.
//
// A durable queue that stays has a channel of its own, and consuming it begins outside the link's turn: a broker whose node that leads
// the queue says nothing answers after a minute, and the consumers of other queues must not wait for that.
func (c *consumer) attach() (a attachment, err error) {
	var current *session
	err = c.ask(c.ctx, func(s *session, ch *amqp.Channel) error {
		current = s
		if err := c.d.topology.declareQueue(s, ch, c.q); err != nil {
			return err
		}
		select {
		case <-c.again: // it was this consumer itself that made the queue
		default:
		}
		if c.ownChannel() {
			return nil
		}
		a, err = c.consume(s)
		return err
	})
	if err != nil || !c.ownChannel() {
		return a, err
	}
	a, err = c.consume(current)
	return a, classify(current, err)
}

// ownChannel reports whether the queue is read on a channel of its own.
func (c *consumer) ownChannel() bool { return c.q.Durable && c.q.Expires == 0 }

// consume starts to consume the queue, on a channel of its own or one with others.
func (c *consumer) consume(s *session) (attachment, error) {
	carrier, err := c.d.carriers.board(s, !c.ownChannel())
	if err != nil {
		return attachment{}, err
	}
	a := attachment{carrier: carrier}
	if a.deliveries, err = carrier.start(c.q, c.tag); err == nil {
		return a, nil
	}
	carrier.left()
	if answered(err, amqp.AccessRefused) {
		return a, fmt.Errorf("%w: queue %q has a consumer already, and it or this one is exclusive: %w", bus.ErrInvalid, c.q.Name, err)
	}
	return a, fmt.Errorf("consume queue %q: %w", c.q.Name, err)
}

// deliver hands deliveries out until the consumer is stopped, or its channel or queue is gone.
func (c *consumer) deliver(a attachment) {
	for {
		select {
		case raw, ok := <-a.deliveries:
			if !ok || !c.hand(a, raw) {
				return
			}
		case <-c.again:
			return
		case <-c.ctx.Done():
			return
		}
	}
}

// beginAgain ends consuming on the present channel.
func (c *consumer) beginAgain() {
	select {
	case c.again <- struct{}{}:
	default:
	}
}

// hand gives one delivery to whoever reads. It reports whether to go on.
func (c *consumer) hand(a attachment, raw amqp.Delivery) bool {
	a.carrier.delivered()
	a.carrier.acks.arrived()
	d := newDelivery(c, a.carrier, raw)
	if c.q.AutoAck {
		if d.acknowledgeEarly() != nil {
			return false // not taken off the queue: it comes again
		}
		select {
		case c.out <- d:
			return true
		case <-c.ctx.Done():
			return false
		}
	}
	select {
	case c.slots <- struct{}{}:
	case <-a.carrier.gone:
		return false
	case <-c.ctx.Done():
		_ = a.carrier.acks.nack(raw.DeliveryTag)
		a.carrier.settled()
		return false
	}
	select {
	case c.out <- d:
		return true
	case <-a.carrier.gone:
	case <-c.ctx.Done():
	}
	_ = d.Requeue()
	return false
}

// detach ends consuming on the broker, gives back what was fetched, and removes a queue that goes with its consumer.
func (c *consumer) detach(a attachment) {
	defer a.carrier.left()
	ctx, cancel := context.WithCancel(c.d.consuming.ctx)
	defer cancel()
	go func() { // nothing is to be ended on a connection that is gone
		defer cancel()
		select {
		case <-a.carrier.gone:
		case <-ctx.Done():
		}
	}()
	err := c.ask(ctx, func(s *session, ch *amqp.Channel) error {
		if s != a.carrier.s || a.carrier.ch.IsClosed() {
			return nil
		}
		if c.passing() {
			// The broker then cancels the consumer. The other way round it would remove the queue by itself when it has no
			// consumer any more, and keep a request to remove it waiting meanwhile.
			_, err := ch.QueueDelete(c.q.Name, false, false, false)
			return err
		}
		return a.carrier.cancel(c.tag)
	})
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		for raw := range a.deliveries {
			a.carrier.acks.arrived()
			_ = a.carrier.acks.nack(raw.DeliveryTag)
		}
	}
	if err == nil && c.passing() {
		err = c.d.delays.drop(ctx, c.d.publishing, c.q.Name)
	}
	if err != nil && !errors.Is(err, bus.ErrClosed) && !errors.Is(err, errLost) {
		c.d.cfg.Logger.Warn("a consumer did not end cleanly", "queue", c.q.Name, "error", err)
	}
}
