package daprbus

import (
	"context"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// A consumer is one reader in this process.
type consumer struct {
	driver  *Driver
	queue   string
	topics  []string
	autoAck bool

	places  chan struct{} // one for each delivery that is not settled
	out     chan bus.Delivery
	closing chan struct{} // closed by Close: no more deliveries
	gone    chan struct{} // closed by the driver's Close: what is not settled goes back
	once    sync.Once
	ended   sync.Once

	giving sync.WaitGroup
	mu     sync.Mutex
	closed bool
}

func newConsumer(d *Driver, q bus.Queue, topics []string) *consumer {
	return &consumer{driver: d, queue: q.Name, topics: topics, autoAck: q.AutoAck, places: make(chan struct{}, q.Prefetch),
		out: make(chan bus.Delivery, q.Prefetch), closing: make(chan struct{}), gone: make(chan struct{})}
}

// Deliveries implements bus.Consumer.
func (c *consumer) Deliveries() <-chan bus.Delivery { return c.out }

// Close implements bus.Consumer. What waits in the channel goes back.
func (c *consumer) Close(context.Context) error {
	c.once.Do(func() {
		c.driver.forget(c)
		c.mu.Lock()
		c.closed = true
		c.mu.Unlock()
		close(c.closing)
		c.giving.Wait()
		close(c.out)
	})
	return nil
}

// abandon gives back what is not settled.
func (c *consumer) abandon() { c.ended.Do(func() { close(c.gone) }) }

// give hands an event over, again and again as its reader asks, until it is settled. settled hears whether it was handled; not, when it has to come again.
func (c *consumer) give(ctx context.Context, m *bus.Message, settled chan<- bool) {
	for attempt := 1; ; attempt++ {
		d := &delivery{message: m, attempt: attempt, answer: make(chan verdict, 1)}
		if !c.hand(ctx, d) {
			settled <- false
			return
		}
		v := c.await(d)
		<-c.places
		if v.retry {
			if !c.pause(ctx, v.delay) {
				settled <- false
				return
			}
			continue
		}
		settled <- v.handled
		return
	}
}

// hand waits for a place and puts the delivery into the channel.
func (c *consumer) hand(ctx context.Context, d *delivery) bool {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return false
	}
	c.giving.Add(1)
	c.mu.Unlock()
	defer c.giving.Done()
	select {
	case c.places <- struct{}{}:
	case <-ctx.Done():
		return false
	case <-c.closing:
		return false
	}
	select {
	case c.out <- d:
	case <-c.closing:
		<-c.places
		return false
	}
	if c.autoAck {
		d.settle(verdict{handled: true})
	}
	return true
}

// await waits for the reader's verdict.
func (c *consumer) await(d *delivery) verdict {
	select {
	case v := <-d.answer:
		return v
	case <-c.gone:
		select {
		case v := <-d.answer:
			return v
		default:
			return verdict{}
		}
	}
}

func (c *consumer) pause(ctx context.Context, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-c.closing:
	}
	return false
}

// A verdict is what becomes of a delivery; the zero one: it goes back.
type verdict struct {
	handled, retry bool
	delay          time.Duration
}

// A delivery is one event in a reader's hands.
type delivery struct {
	message *bus.Message
	attempt int
	once    sync.Once
	answer  chan verdict
}

func (d *delivery) settle(v verdict) { d.once.Do(func() { d.answer <- v }) }

// Message implements bus.Delivery.
func (d *delivery) Message() *bus.Message { return d.message }

// Attempt counts the redeliveries made here; how often the sidecar has brought the event, it does not say.
func (d *delivery) Attempt() int { return d.attempt }

// Ack implements bus.Delivery.
func (d *delivery) Ack() error { d.settle(verdict{handled: true}); return nil }

// Requeue implements bus.Delivery.
func (d *delivery) Requeue() error { d.settle(verdict{}); return nil }

// Retry implements bus.Delivery: the sidecar waits for its answer meanwhile.
func (d *delivery) Retry(_ context.Context, delay time.Duration) error {
	d.settle(verdict{retry: true, delay: delay})
	return nil
}
