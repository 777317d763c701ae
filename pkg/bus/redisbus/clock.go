package redisbus

import (
	"context"
	"sync"
	"time"
)

// clock moves delayed messages to their queues when they are due. It looks when this driver knows of one, and every
// second for queues that others may have delayed messages of.
type clock struct {
	d    *Driver
	wake chan struct{}

	mu      sync.Mutex
	due     map[string]time.Time // queue -> when to look next
	readers map[string]int       // queue -> how many consumers of this driver read it
}

const lookAgain = time.Second

func newClock(d *Driver) *clock {
	return &clock{d: d, wake: make(chan struct{}, 1), due: make(map[string]time.Time), readers: make(map[string]int)}
}

// attend has a queue's delayed messages looked at from now on, until as many have left as have attended.
func (c *clock) attend(queue string) {
	c.mu.Lock()
	c.readers[queue]++
	c.mu.Unlock()
	c.look(queue, time.Now())
}

func (c *clock) leave(queue string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readers[queue]--; c.readers[queue] <= 0 {
		delete(c.readers, queue)
		delete(c.due, queue)
	}
}

// look asks for a look at a queue's delayed messages, at the latest then. It is looked at until its last reader leaves.
func (c *clock) look(queue string, at time.Time) {
	c.mu.Lock()
	if old, found := c.due[queue]; !found || at.Before(old) {
		c.due[queue] = at
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *clock) tick() {
	for {
		now := time.Now()
		next := now.Add(lookAgain)
		for _, queue := range c.ripe(now, &next) {
			c.move(queue)
		}
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
		case <-c.wake:
		case <-c.d.closing.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// ripe are the queues to look at now; next is when the first of the others is.
func (c *clock) ripe(now time.Time, next *time.Time) (queues []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for queue, at := range c.due {
		switch {
		case !at.After(now):
			queues = append(queues, queue)
			c.due[queue] = now.Add(lookAgain)
		case at.Before(*next):
			*next = at
		}
	}
	return queues
}

func (c *clock) move(queue string) {
	ctx, cancel := context.WithTimeout(c.d.closing, answerTimeout)
	defer cancel()
	wait, err := c.d.run.due.Run(ctx, c.d.client, []string{delayedKey(queue), ownKey(queue)}).Int64()
	if err != nil || wait < 0 || wait > lookAgain.Milliseconds() {
		return // the next look is set
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, found := c.due[queue]; found {
		c.due[queue] = time.Now().Add(time.Duration(wait)*time.Millisecond + time.Millisecond/2)
	}
}
