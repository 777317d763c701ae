package memorybus

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// consumer is one reader of a queue. The queue's lock guards its fields.
type consumer struct {
	queue   *queue
	autoAck bool
	places  int // deliveries that it may still be given
	closed  bool

	// out has room for every delivery that places allows, so that giving one never waits. With autoAck there is no
	// limit to what may be out: a goroutine hands over one after another.
	out     chan bus.Delivery
	hand    chan *entry
	closing chan struct{}
	handed  chan struct{} // closed when that goroutine has ended; nil without it
}

func newConsumer(q *queue, spec bus.Queue) *consumer {
	c := &consumer{queue: q, autoAck: spec.AutoAck, places: spec.Prefetch, closing: make(chan struct{})}
	if !c.autoAck {
		c.out = make(chan bus.Delivery, spec.Prefetch)
		return c
	}
	c.places = 1
	c.out = make(chan bus.Delivery)
	c.hand = make(chan *entry, 1)
	c.handed = make(chan struct{})
	go c.handOver()
	return c
}

// Deliveries yields what the queue delivers, until Close.
func (c *consumer) Deliveries() <-chan bus.Delivery { return c.out }

// deliver gives the consumer an entry; it has a place for it. The queue's lock is held.
func (c *consumer) deliver(e *entry) {
	c.places--
	if c.autoAck {
		c.hand <- e
		return
	}
	c.out <- newDelivery(c, e)
}

// handOver gives one entry after another to the reader, and forgets it when the reader has it.
func (c *consumer) handOver() {
	defer close(c.handed)
	defer close(c.out)
	for {
		select {
		case e := <-c.hand:
			d := newDelivery(c, e)
			d.settled.Store(true)
			select {
			case c.out <- d:
				c.queue.forgot(c)
			case <-c.closing:
				c.queue.giveBack(e)
				return
			}
		case <-c.closing:
			select {
			case e := <-c.hand:
				c.queue.giveBack(e)
			default:
			}
			return
		}
	}
}

// Close stops the flow; what is in the channel goes back to its place in the queue.
func (c *consumer) Close(context.Context) error {
	q := c.queue
	q.mu.Lock()
	q.leave(c)
	c.shut()
	q.dispatch()
	q.mu.Unlock()
	if c.handed != nil {
		<-c.handed
	}
	q.driver.release(q)
	return nil
}

// shut ends the flow. The queue's lock is held.
func (c *consumer) shut() {
	if c.closed {
		return
	}
	c.closed = true
	c.places = 0
	close(c.closing)
	if c.autoAck {
		return
	}
	for {
		select {
		case d := <-c.out:
			c.queue.back(d.(*delivery).entry)
			continue
		default:
		}
		break
	}
	close(c.out)
}

// delivery is an entry in a consumer's hands.
type delivery struct {
	consumer *consumer
	entry    *entry
	attempt  int
	settled  atomic.Bool
}

func newDelivery(c *consumer, e *entry) *delivery {
	return &delivery{consumer: c, entry: e, attempt: e.attempt}
}

func (d *delivery) Message() *bus.Message { return d.entry.message }
func (d *delivery) Attempt() int          { return d.attempt }

func (d *delivery) Ack() error {
	return d.settle(func(q *queue) { q.free() })
}

func (d *delivery) Requeue() error {
	return d.settle(func(q *queue) {
		d.entry.attempt++
		q.back(d.entry)
	})
}

func (d *delivery) Retry(ctx context.Context, delay time.Duration) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	return d.settle(func(q *queue) {
		d.entry.attempt++
		if delay <= 0 {
			q.back(d.entry)
			return
		}
		q.await(d.entry, time.Now().Add(delay), true)
	})
}

// settle does once what becomes of the entry, and makes the consumer's place free.
func (d *delivery) settle(become func(*queue)) error {
	if d.settled.Swap(true) {
		return nil
	}
	q := d.consumer.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return nil // the queue is gone, and all that it had
	}
	become(q)
	if !d.consumer.closed {
		d.consumer.places++
	}
	q.dispatch()
	return nil
}

// back makes an entry that was delivered ready again. The queue's lock is held.
func (q *queue) back(e *entry) {
	if !q.ended {
		q.offer(e)
	}
}

// giveBack is back for an entry that never reached the reader.
func (q *queue) giveBack(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.back(e)
	q.dispatch()
}

// forgot tells that the reader has what the consumer had in hand.
func (q *queue) forgot(c *consumer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free()
	if !c.closed {
		c.places = 1
		q.dispatch()
	}
}
