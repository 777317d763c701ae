package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// chance decides what happens to messages.
type chance struct {
	mu     sync.Mutex
	source *rand.Rand
}

// draw says how late a delivery comes, and whether it comes twice.
func (c *chance) draw() (delay time.Duration, twice bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.source.Int64N(int64(late))), c.source.Float64() < doubled
}

// unruly is a driver whose deliveries come twice, late and out of order.
type unruly struct {
	bus.Driver
	chance *chance
}

func (u unruly) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	c, err := u.Driver.Subscribe(ctx, q)
	if err != nil {
		return nil, err
	}
	consumer := &consumer{Consumer: c, chance: u.chance, out: make(chan bus.Delivery), closing: make(chan struct{}), done: make(chan struct{})}
	go consumer.pass()
	return consumer, nil
}

// A consumer passes deliveries on, each in a goroutine of its own.
type consumer struct {
	bus.Consumer
	chance *chance
	out    chan bus.Delivery

	once    sync.Once
	closing chan struct{}
	done    chan struct{}
}

func (c *consumer) Deliveries() <-chan bus.Delivery { return c.out }

// pass ends when the consumer is closed and no delivery is left.
func (c *consumer) pass() {
	defer close(c.done)
	defer close(c.out)
	var passing sync.WaitGroup
	for d := range c.Consumer.Deliveries() {
		delay, twice := c.chance.draw()
		passing.Go(func() {
			if !c.after(delay, d) {
				_ = d.Requeue() // it comes elsewhere, or later
			} else if twice {
				again, _ := c.chance.draw()
				c.after(again, settled{d})
			}
		})
	}
	passing.Wait()
}

// after passes a delivery on after a time, unless the consumer is closed before.
func (c *consumer) after(delay time.Duration, d bus.Delivery) (passed bool) {
	select {
	case <-time.After(delay):
	case <-c.closing:
		return false
	}
	select {
	case c.out <- d:
		return true
	case <-c.closing:
		return false
	}
}

func (c *consumer) Close(ctx context.Context) error {
	c.once.Do(func() { close(c.closing) })
	err := c.Consumer.Close(ctx)
	select {
	case <-c.done:
	case <-ctx.Done():
	}
	return err
}

// settled is a delivery once more, which the first one settles.
type settled struct{ bus.Delivery }

func (settled) Ack() error                                 { return nil }
func (settled) Requeue() error                             { return nil }
func (settled) Retry(context.Context, time.Duration) error { return nil }
