package redisbus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// A source is a stream that a queue reads.
type source struct {
	key      string
	topic    string   // of a stream of the default exchange, for messages of programs that do not write it
	patterns []string // of the keys that the queue wants of it; none: all
}

func (s source) wants(m *bus.Message) bool {
	return len(s.patterns) == 0 || matchesAny(s.patterns, m.RoutingKey)
}

// streamsOf are the streams that a queue's bindings name now.
//
// news is up to which of them it has heard of new topics.
func (d *Driver) streamsOf(ctx context.Context, q record) (list []source, news position, err error) {
	all := make(map[string]source)
	other := make(map[string][]string)
	wild := false
	for _, b := range q.Bindings {
		switch {
		case b.Exchange != d.cfg.Exchange:
			other[b.Exchange] = append(other[b.Exchange], b.Pattern)
		case isPattern(b.Pattern):
			wild = true
		default:
			all[b.Pattern] = source{key: b.Pattern, topic: b.Pattern}
		}
	}
	for exchange, patterns := range other {
		all[exchangeKey(exchange)] = source{key: exchangeKey(exchange), patterns: patterns}
	}
	if wild {
		var topics []string
		topics, news, err = d.registry.current(ctx, func(topic string) bool { return d.isTopic(topic) && q.wants(d.cfg.Exchange, topic) })
		if err != nil {
			return nil, position{}, err
		}
		for _, topic := range topics {
			all[topic] = source{key: topic, topic: topic}
		}
	}
	return slices.Collect(maps.Values(all)), news, nil
}

// enrol registers what a queue's bindings name: a topic is known before its first message is.
func (d *Driver) enrol(ctx context.Context, q record) error {
	for _, b := range q.Bindings {
		if b.Exchange != d.cfg.Exchange {
			if err := d.registry.registerExchange(ctx, b.Exchange); err != nil {
				return err
			}
		} else if !isPattern(b.Pattern) {
			if err := d.registry.register(ctx, b.Exchange, b.Pattern); err != nil {
				return err
			}
		}
	}
	return nil
}

// place is where a delivery lies.
type place struct{ stream, id string }

// groupConsumer reads a queue that is a consumer group on each of its streams. One goroutine reads.
type groupConsumer struct {
	d      *Driver
	q      bus.Queue
	id     string // among all readers of the queue, those of this driver too: what is pending under it is this one's
	record record
	stands standing
	own    source

	out     chan bus.Delivery
	slots   chan struct{} // has an element for each delivery that is not settled
	closing chan struct{}
	ended   chan struct{}
	stop    sync.Once
	gone    atomic.Bool // the queue was deleted
	behind  atomic.Bool // there is something in the own stream, which goes before
	claim   atomic.Bool // it is time to look for what others have left
	recover atomic.Bool // it is time to look for what was delivered to us and got lost
	missed  atomic.Bool // a topic could not be added
	reader  blocked

	mu        sync.Mutex
	sources   map[string]source
	work      map[place]*groupDelivery
	back      []*groupDelivery // gathered to be given back
	gathering *time.Timer      // gives back what was gathered, all settled or not; nil before the first
	moves     []place          // notes that are of no use any more
}

// subscribeGroup declares a queue with groups, and begins to read it.
func (d *Driver) subscribeGroup(ctx context.Context, q bus.Queue, reader string) (consumer, error) {
	r := record{Bindings: q.Bindings, Durable: q.Durable, Exclusive: q.Exclusive, Expires: q.Expires.Milliseconds(),
		MaxCount: q.MaxMessages, MaxBytes: q.MaxBytes, Overflow: q.Overflow}
	c := &groupConsumer{
		d: d, q: q, id: reader, record: r, own: source{key: ownKey(q.Name)},
		slots: make(chan struct{}, q.Prefetch), closing: make(chan struct{}), ended: make(chan struct{}),
		sources: make(map[string]source), work: make(map[place]*groupDelivery),
	}
	c.out = make(chan bus.Delivery, q.Prefetch)
	if q.AutoAck {
		c.out = make(chan bus.Delivery)
	}
	c.reader.d = d
	c.behind.Store(true)
	if c.wild() {
		if err := d.shared.listen(ctx); err != nil {
			return nil, err
		}
	}
	joined, err := d.registry.declare(ctx, q.Name, r, reader)
	if err != nil {
		return nil, err
	}
	if err := d.enrol(ctx, r); err != nil {
		return nil, err
	}
	if !d.add(c) {
		return nil, bus.ErrClosed
	}
	if err := c.join(ctx, !joined); err != nil {
		d.forget(c)
		return nil, err
	}
	d.clock.attend(q.Name)
	go c.read() //nolint:contextcheck // it outlives the call
	return c, nil
}

// join makes sure that all streams of the queue have its group. A queue that is new begins with what comes from now on;
// one that was there goes on where its group was, as far as that was recorded, and else at the beginning.
func (c *groupConsumer) join(ctx context.Context, fresh bool) error {
	streams, _, err := c.d.streamsOf(ctx, c.record)
	if err != nil {
		return err
	}
	recorded := map[string]string{}
	if !fresh {
		if recorded, err = c.d.client.HGetAll(ctx, positionsKey(c.q.Name)).Result(); err != nil {
			return err
		}
	}
	for _, s := range streams {
		at := "$"
		if !fresh {
			at = "0-0"
			if p := recorded[s.key]; p != "" {
				at = p
			}
		}
		if err := c.d.registry.group(ctx, s.key, c.q.Name, at); err != nil {
			return err
		}
	}
	if err := c.d.registry.group(ctx, c.own.key, c.q.Name, "0-0"); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range append(streams, c.own) {
		c.sources[s.key] = s
	}
	return nil
}

// topic adds a topic that is new to a queue with a pattern.
func (c *groupConsumer) topic(ctx context.Context, topic string, _ position) {
	if !c.record.wants(c.d.cfg.Exchange, topic) {
		return
	}
	c.mu.Lock()
	_, found := c.sources[topic]
	c.mu.Unlock()
	if found {
		return
	}
	if err := c.d.registry.group(ctx, topic, c.q.Name, "0-0"); err != nil {
		c.missed.Store(true)
		return
	}
	c.mu.Lock()
	c.sources[topic] = source{key: topic, topic: topic}
	c.mu.Unlock()
	c.reader.wake(ctx)
}

func (c *groupConsumer) wild() bool { return len(c.patterns()) > 0 }

// patternsOf are the patterns by which a queue is bound to the default exchange.
func (d *Driver) patternsOf(q record) (list []string) {
	for _, b := range q.Bindings {
		if b.Exchange == d.cfg.Exchange && isPattern(b.Pattern) {
			list = append(list, b.Pattern)
		}
	}
	return list
}

func (c *groupConsumer) queueName() string  { return c.q.Name }
func (c *groupConsumer) patterns() []string { return c.d.patternsOf(c.record) }

// Deliveries yields what the queue delivers, until Close.
func (c *groupConsumer) Deliveries() <-chan bus.Delivery { return c.out }

// Close stops the flow; what was fetched and not taken goes back.
func (c *groupConsumer) Close(ctx context.Context) error {
	c.stop.Do(func() { close(c.closing) })
	if err := c.reader.wakeUntil(ctx, c.ended); err != nil {
		return fmt.Errorf("close the consumer of queue %q: %w", c.q.Name, err)
	}
	return nil
}

func (c *groupConsumer) end() {
	c.gone.Store(true)
	c.stop.Do(func() { close(c.closing) })
}

// renew says that the consumer lives, and that it keeps what it has in work.
func (c *groupConsumer) renew(ctx context.Context) {
	if o := c.parting(); o != nil { // its last delivery was settled while it ended
		o.ctx = ctx
		_ = c.d.settling.put(o)
		return
	}
	if there, err := c.stands.renew(ctx, c.d.registry, c.q.Name, c.record, c.id); err == nil && !there {
		c.end()
		return
	}
	if c.missed.Swap(false) && c.join(ctx, false) != nil {
		c.missed.Store(true)
	}
	c.claim.Store(true)
	c.forgetMoves(ctx)
	for stream, ids := range c.inWork() {
		for chunk := range slices.Chunk(ids, 500) {
			// Claiming what is ours sets its idle time to nothing.
			err := c.d.client.XClaimJustID(ctx, &redis.XClaimArgs{Stream: stream, Group: c.q.Name, Consumer: c.id, Messages: chunk}).Err()
			if err != nil {
				return // the reader sees what is wrong, or the next renewal mends it
			}
		}
	}
}

func (c *groupConsumer) inWork() map[string][]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make(map[string][]string)
	for p := range c.work {
		ids[p.stream] = append(ids[p.stream], p.id)
	}
	return ids
}

// abandon waits until ctx ends for what is in work to be settled, and gives the rest back.
func (c *groupConsumer) abandon(ctx context.Context) int {
	for {
		c.mu.Lock()
		rest := slices.Collect(maps.Values(c.work))
		c.mu.Unlock()
		rest = slices.DeleteFunc(rest, func(d *groupDelivery) bool { return d.settled.Load() })
		if len(rest) == 0 {
			break
		}
		select {
		case <-time.After(5 * time.Millisecond):
			continue
		case <-ctx.Done():
		}
		unsettled := 0
		for _, d := range rest {
			if !d.settled.Load() {
				_ = d.giveBack(1)
				unsettled++
			}
		}
		c.giveBackAll(true)
		c.d.forget(c)
		return unsettled
	}
	c.giveBackAll(true)
	c.d.forget(c)
	return 0
}

var errDeleted = errors.New("the queue was deleted")
