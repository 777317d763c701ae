package memorybus

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// queue holds messages until a consumer has acknowledged them.
type queue struct {
	driver    *Driver
	name      string
	durable   bool
	exclusive bool
	keep      *keeping // the dead-letter store's limits; nil for all others

	bindings []bus.Binding // the driver's lock guards it, and expiry
	expires  time.Duration // how long it stays while nobody reads it; 0: for ever
	expiry   *time.Timer   // nil until it was left once

	maxMessages int // that are ready; 0: as many as come
	maxBytes    int64
	overflow    string // the queue that hears of what is more

	// room has one element for each message that the queue holds or that is on its way here.
	room chan struct{}
	gone chan struct{} // closed when the queue is removed

	mu        sync.Mutex
	ended     bool
	seq       uint64
	ready     ready
	bytes     int64 // of the bodies that are ready
	waits     waits
	timer     *time.Timer
	timerAt   time.Time // zero: not set
	consumers []*consumer
	turn      int // whose turn it is among consumers
}

// keeping is how much the dead-letter store keeps: what is over the limit goes, the oldest first.
type keeping struct {
	messages int
	age      time.Duration
}

func newQueue(d *Driver, spec bus.Queue) *queue {
	return &queue{
		driver:      d,
		name:        spec.Name,
		durable:     spec.Durable,
		exclusive:   spec.Exclusive,
		expires:     spec.Expires,
		maxMessages: spec.MaxMessages, maxBytes: spec.MaxBytes, overflow: spec.Overflow,
		bindings: spec.Bindings,
		room:     make(chan struct{}, d.cfg.MaxQueueLength),
		gone:     make(chan struct{}),
	}
}

// reserve waits for room for one message.
func (q *queue) reserve(ctx context.Context) error {
	if q.keep != nil {
		return nil
	}
	select {
	case q.room <- struct{}{}:
		return nil
	default:
	}
	select {
	case q.room <- struct{}{}:
		return nil
	case <-q.gone:
		return nil // as if it had gone before: nothing takes the message
	case <-ctx.Done():
		return fmt.Errorf("%w: %w: queue %q is full: %w", bus.ErrUnavailable, bus.ErrRefused, q.name, context.Cause(ctx))
	}
}

// free gives the room of one message back.
func (q *queue) free() {
	select {
	case <-q.room:
	default: // the store reserves none
	}
}

// add puts a new message into the queue, and tells of what has no room beside it.
func (q *queue) add(m *bus.Message) {
	for _, e := range q.put(m) {
		q.driver.overflowed(q, e.message)
	}
}

// put puts a new message into the queue, and returns what has no room beside it.
func (q *queue) put(m *bus.Message) (over []*entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return nil
	}
	q.seq++
	e := &entry{message: m, seq: q.seq, attempt: 1, readyPos: -1, duePos: -1}
	if q.keep != nil {
		e.expires = time.Now().Add(q.keep.age)
		if len(q.ready) >= q.keep.messages {
			q.drop(q.ready[0], "limit")
		}
	} else {
		e.priority = m.Priority
		if m.Expiration > 0 {
			e.expires = time.Now().Add(m.Expiration)
		}
	}
	q.offer(e)
	q.dispatch()
	for q.maxMessages > 0 && len(q.ready) > q.maxMessages || q.maxBytes > 0 && q.bytes > q.maxBytes {
		over = append(over, q.ready[0])
		q.drop(q.ready[0], "limit")
	}
	return over
}

// offer makes an entry ready to be delivered. As the rest of this file, it runs with q.mu held.
func (q *queue) offer(e *entry) {
	q.ready.add(e)
	q.bytes += int64(len(e.message.Body))
	if !e.expires.IsZero() {
		q.await(e, e.expires, false)
	}
}

// await has something happen to an entry at a time.
func (q *queue) await(e *entry, at time.Time, delayed bool) {
	e.due, e.delayed = at, delayed
	q.waits.add(e)
	q.setTimer()
}

// take removes an entry from where it waits.
func (q *queue) take(e *entry) {
	if e.readyPos >= 0 {
		q.bytes -= int64(len(e.message.Body))
	}
	q.ready.remove(e)
	q.waits.remove(e)
}

func (q *queue) drop(e *entry, why string) {
	q.take(e)
	q.free()
	q.driver.drops.count(q.name, why)
}

// dispatch delivers while there is something to deliver and a consumer with a free place.
func (q *queue) dispatch() {
	for len(q.ready) > 0 {
		c := q.nextConsumer()
		if c == nil {
			return
		}
		e := q.ready[0]
		q.take(e)
		c.deliver(e)
	}
}

// nextConsumer is the next in turn that has a free place.
func (q *queue) nextConsumer() *consumer {
	for range q.consumers {
		q.turn = (q.turn + 1) % len(q.consumers)
		if c := q.consumers[q.turn]; c.places > 0 {
			return c
		}
	}
	return nil
}

// setTimer sets the timer to the earliest wait.
func (q *queue) setTimer() {
	if len(q.waits) == 0 || q.ended {
		return
	}
	at := q.waits[0].due
	if !q.timerAt.IsZero() && !at.Before(q.timerAt) {
		return // it fires before, and sets itself again
	}
	q.timerAt = at
	if q.timer == nil {
		q.timer = time.AfterFunc(time.Until(at), q.fire)
		return
	}
	q.timer.Reset(time.Until(at))
}

// fire does what is due.
func (q *queue) fire() {
	if !q.driver.begin() {
		return
	}
	defer q.driver.background.Done()
	for _, e := range q.pass(time.Now()) {
		q.driver.expire(q, e)
	}
}

// pass makes ready what was delayed until now, and returns what has expired.
func (q *queue) pass(now time.Time) (expired []*entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.timerAt = time.Time{}
	if q.ended {
		return nil
	}
	for len(q.waits) > 0 && !q.waits[0].due.After(now) {
		e := q.waits[0]
		delayed := e.delayed
		switch {
		case delayed:
			q.take(e)
			q.offer(e)
		case q.keep != nil:
			q.drop(e, "age")
		default:
			q.take(e)
			q.free()
			expired = append(expired, e)
		}
	}
	q.setTimer()
	q.dispatch()
	return expired
}

// end forgets all that the queue holds, and ends its consumers.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return
	}
	q.ended = true
	close(q.gone)
	if q.timer != nil {
		q.timer.Stop()
	}
	for _, c := range q.consumers {
		c.shut()
	}
	q.consumers, q.ready, q.waits = nil, nil, nil
}

// admits tells whether a further consumer may join.
func (q *queue) admits(spec bus.Queue) error {
	if q.durable != spec.Durable {
		return fmt.Errorf("%w: queue %q exists, and is durable: %t", bus.ErrInvalid, q.name, q.durable)
	}
	if (q.exclusive || spec.Exclusive) && q.consumerCount() > 0 {
		return fmt.Errorf("%w: queue %q is in use, and exclusive", bus.ErrInvalid, q.name)
	}
	return nil
}

func (q *queue) consume(spec bus.Queue) *consumer {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := newConsumer(q, spec)
	q.consumers = append(q.consumers, c)
	q.dispatch()
	return c
}

func (q *queue) leave(c *consumer) {
	if i := slices.Index(q.consumers, c); i >= 0 {
		q.consumers = slices.Delete(q.consumers, i, i+1)
	}
}

func (q *queue) consumerCount() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.consumers)
}

func (q *queue) info() bus.QueueInfo {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := bus.QueueInfo{Name: q.name, Messages: int64(len(q.ready)), Consumers: int64(len(q.consumers))}
	if len(q.bindings) > 0 {
		i.Topic, i.Exchange = q.bindings[0].Pattern, q.bindings[0].Exchange
	}
	return i
}
