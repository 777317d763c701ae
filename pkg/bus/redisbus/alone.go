package redisbus

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// How much a consumer without a group holds of what it has not handed out, before it reads the rest later by itself.
const (
	aloneBuffer  = 256
	aloneDelayed = 10_000
)

// aloneConsumer reads a queue that goes with it: one of a session, of which a node has thousands. It needs no group, as
// nobody goes on where it stops, and no connection, as the driver's shared readers read for all of them. What is to come
// again waits in this process, whose end is the queue's.
type aloneConsumer struct {
	d      *Driver
	q      bus.Queue
	id     string // among all who ever read the queue
	record record
	stands standing

	out     chan bus.Delivery
	slots   chan struct{}
	closing chan struct{}
	ended   chan struct{}
	stop    sync.Once
	gone    atomic.Bool
	signal  chan struct{} // there may be something to do

	mu     sync.Mutex
	ready  bool // the streams are known, and news up to here
	news   position
	early  []newTopic
	reads  map[string]*reach
	buffer []fetched
	again  []*aloneDelivery
	timers map[*time.Timer]struct{}
}

type newTopic struct {
	topic string
	at    position
}

// reach is how far a consumer has come in a stream.
type reach struct {
	from   source
	at     mark     // of the last entry in the buffer, or handed out
	high   position // of the last entry that is known of
	behind bool     // there are entries between, which are to be fetched
}

// subscribeAlone declares a queue that goes with its consumer, and begins to read it.
func (d *Driver) subscribeAlone(ctx context.Context, q bus.Queue, reader string) (consumer, error) {
	c := &aloneConsumer{
		d: d, q: q, id: reader, record: record{Bindings: q.Bindings, Exclusive: true, Inbox: inboxKey(d.id)},
		out: make(chan bus.Delivery), slots: make(chan struct{}, q.Prefetch), closing: make(chan struct{}), ended: make(chan struct{}),
		signal: make(chan struct{}, 1), reads: make(map[string]*reach), timers: make(map[*time.Timer]struct{}),
	}
	if err := d.shared.listen(ctx); err != nil {
		return nil, err
	}
	if _, err := d.registry.declare(ctx, q.Name, c.record, reader); err != nil {
		return nil, err
	}
	if !d.add(c) {
		return nil, bus.ErrClosed
	}
	if err := c.join(ctx); err != nil {
		c.leaveStreams()
		d.forget(c)
		_, _ = d.registry.leave(context.WithoutCancel(ctx), q.Name, false, reader)
		return nil, err
	}
	go c.read() //nolint:contextcheck // it outlives the call
	return c, nil
}

// join begins in each stream with what comes from now on.
func (c *aloneConsumer) join(ctx context.Context) error {
	if err := c.d.enrol(ctx, c.record); err != nil {
		return err
	}
	streams, news, err := c.d.streamsOf(ctx, c.record)
	if err != nil {
		return err
	}
	keys := make([]string, len(streams))
	for i, s := range streams {
		keys[i] = s.key
	}
	last, err := lastMarks(ctx, c.d.client, keys)
	if err != nil {
		return err
	}
	for i, s := range streams {
		c.follow(s, last[i]) //nolint:contextcheck // it outlives the call
	}
	c.mu.Lock()
	c.ready, c.news = true, news
	early := c.early
	c.early = nil
	c.mu.Unlock()
	for _, n := range early {
		c.topic(ctx, n.topic, n.at)
	}
	return nil
}

// topic adds a topic that is new to a queue with a pattern: all of it came after the queue.
func (c *aloneConsumer) topic(_ context.Context, topic string, news position) {
	if !c.record.wants(c.d.cfg.Exchange, topic) {
		return
	}
	c.mu.Lock()
	if !c.ready {
		c.early = append(c.early, newTopic{topic, news})
		c.mu.Unlock()
		return
	}
	known := !c.news.less(news)
	c.mu.Unlock()
	if !known {
		c.follow(source{key: topic, topic: topic}, mark{number: -1}) //nolint:contextcheck // it outlives the call
	}
}

func (c *aloneConsumer) follow(s source, at mark) {
	c.mu.Lock()
	if c.reads[s.key] != nil {
		c.mu.Unlock()
		return
	}
	c.reads[s.key] = &reach{from: s, at: at, high: at.position}
	c.mu.Unlock()
	c.d.shared.watch(s.key, at, c)
}

func (c *aloneConsumer) leaveStreams() {
	c.mu.Lock()
	keys := slices.Collect(maps.Keys(c.reads))
	c.mu.Unlock()
	c.d.shared.unwatch(keys, c)
}

// feed is told what came in a stream, and the number of the last of it.
func (c *aloneConsumer) feed(stream string, list []entry, number int64) {
	c.mu.Lock()
	r := c.reads[stream]
	if r == nil {
		c.mu.Unlock()
		return
	}
	for i, e := range list {
		if !r.at.less(e.at) {
			continue
		}
		r.high = e.at
		if r.behind || len(c.buffer) >= aloneBuffer {
			r.behind = true
			continue
		}
		r.at = mark{e.at, number - int64(len(list)-1-i)}
		c.buffer = append(c.buffer, fetched{from: r.from, entry: e.message})
	}
	c.mu.Unlock()
	c.poke()
}

// trimmed is told that so many entries of a stream after a position went before anybody had read them for it.
func (c *aloneConsumer) trimmed(stream string, at position, n int64) {
	c.mu.Lock()
	r := c.reads[stream]
	ahead := r == nil || at.less(r.at.position) // it has read them by itself
	c.mu.Unlock()
	if !ahead {
		c.d.drops.count(context.Background(), c.q.Name, droppedTrimmed, n)
	}
}

// missed is told that a stream has entries up to a position that it was not told of.
func (c *aloneConsumer) missed(stream string, high position) {
	c.mu.Lock()
	if r := c.reads[stream]; r != nil && r.at.less(high) {
		r.behind, r.high = true, high
	}
	c.mu.Unlock()
	c.poke()
}

func (c *aloneConsumer) poke() {
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

func (c *aloneConsumer) queueName() string               { return c.q.Name }
func (c *aloneConsumer) patterns() []string              { return c.d.patternsOf(c.record) }
func (c *aloneConsumer) Deliveries() <-chan bus.Delivery { return c.out }
func (c *aloneConsumer) abandon(context.Context) int     { return 0 }

// Close ends the queue with its consumer.
func (c *aloneConsumer) Close(ctx context.Context) error {
	c.stop.Do(func() { close(c.closing) })
	select {
	case <-c.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close the consumer of queue %q: %w", c.q.Name, context.Cause(ctx))
	}
}

func (c *aloneConsumer) end() {
	c.gone.Store(true)
	c.stop.Do(func() { close(c.closing) })
}

// renewAlone says that consumers live, by one round trip. Where it fails the next one mends it.
func (d *Driver) renewAlone(ctx context.Context, some []*aloneConsumer) {
	var alive []*aloneConsumer
	for _, c := range some {
		select {
		case <-c.closing:
			continue
		default:
		}
		c.stands.mu.Lock() // until the answer: who leaves is not renewed by what is on its way
		if c.stands.left {
			c.stands.mu.Unlock()
			continue
		}
		alive = append(alive, c)
	}
	gone, err := d.registry.renewAll(ctx, alive)
	if redis.HasErrorPrefix(err, "NOSCRIPT") && d.run.renew.Load(ctx, d.client).Err() == nil {
		gone, _ = d.registry.renewAll(ctx, alive)
	}
	for _, c := range alive {
		c.stands.mu.Unlock()
	}
	for _, c := range gone {
		c.end()
	}
}

// read hands out what there is until the consumer is closed.
func (c *aloneConsumer) read() {
	defer c.finish()
	pause := c.d.cfg.RetryDelay
	for {
		d, err := c.next()
		if err != nil {
			c.d.log.Debug("a queue cannot be read; trying again", "queue", c.q.Name, "pause", pause, "error", err)
			select {
			case <-time.After(pause):
			case <-c.closing:
				return
			}
			pause = min(2*pause, c.d.cfg.MaxRetryDelay)
			continue
		}
		pause = c.d.cfg.RetryDelay
		if d == nil {
			select {
			case <-c.signal:
				continue
			case <-c.closing:
				return
			}
		}
		if !c.hand(d) {
			return
		}
	}
}

func (c *aloneConsumer) hand(d *aloneDelivery) bool {
	if !c.q.AutoAck {
		select {
		case c.slots <- struct{}{}:
		case <-c.closing:
			return false
		}
	}
	d.settled.Store(c.q.AutoAck)
	select {
	case c.out <- d:
		return true
	case <-c.closing:
		return false
	}
}

// next is the next delivery; nil: there is none now.
func (c *aloneConsumer) next() (*aloneDelivery, error) {
	for {
		select {
		case <-c.closing:
			return nil, nil
		default:
		}
		c.mu.Lock()
		if len(c.again) > 0 {
			d := c.again[0]
			c.again = c.again[1:]
			c.mu.Unlock()
			return &aloneDelivery{c: c, message: d.message, attempt: d.attempt}, nil
		}
		if len(c.buffer) == 0 {
			late := c.late()
			c.mu.Unlock()
			if late == nil {
				return nil, nil
			}
			if err := c.catchUp(late); err != nil {
				return nil, err
			}
			continue
		}
		f := c.buffer[0]
		c.mu.Unlock()
		m, attempt, dropped, err := c.d.open(c.q.Name, f)
		if err != nil {
			return nil, err
		}
		c.mu.Lock()
		c.buffer = c.buffer[1:]
		c.mu.Unlock()
		if !dropped && f.from.wants(m) {
			return &aloneDelivery{c: c, message: m, attempt: attempt}, nil
		}
	}
}

// late is a stream with entries to fetch; the lock is held.
func (c *aloneConsumer) late() *reach {
	for _, r := range c.reads {
		if r.behind {
			return r
		}
	}
	return nil
}

// catchUp fetches what came in a stream while the buffer was full, and counts what was trimmed before.
func (c *aloneConsumer) catchUp(r *reach) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	var page *redis.XMessageSliceCmd
	var info *redis.XInfoStreamCmd
	_, err := c.d.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		page = p.XRangeN(ctx, r.from.key, "("+r.at.String(), "+", aloneBuffer/2)
		info = p.XInfoStream(ctx, r.from.key)
		return nil
	})
	deleted := redis.HasErrorPrefix(err, "no such key")
	if err != nil && !deleted {
		return err
	}
	list := entries([]redis.XStream{{Stream: r.from.key, Messages: page.Val()}})[r.from.key]
	c.mu.Lock()
	at := r.at
	for _, e := range list {
		r.at.position = e.at
		c.buffer = append(c.buffer, fetched{from: r.from, entry: e.message})
	}
	if len(list) == 0 && r.at.less(r.high) {
		r.at.position = r.high // trimmed since
	}
	if r.high.less(r.at.position) {
		r.high = r.at.position
	}
	r.behind = r.at.less(r.high)
	var lost int64
	r.at.number = -1
	if !deleted {
		lost, r.at.number = gap(info.Val(), at, list)
	}
	c.mu.Unlock()
	c.d.drops.count(ctx, c.q.Name, droppedTrimmed, lost)
	return nil
}

// finish takes the queue off the registry.
func (c *aloneConsumer) finish() {
	defer close(c.ended)
	close(c.out)
	c.leaveStreams()
	c.d.forget(c)
	c.mu.Lock()
	for t := range c.timers {
		t.Stop()
	}
	c.mu.Unlock()
	if c.gone.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastWord)
	defer cancel()
	_, _ = c.stands.leave(ctx, c.d.registry, c.q.Name, false, c.id) // else it goes when nothing is heard of its reader
}

// comeAgain puts a delivery back, before all that is new.
func (c *aloneConsumer) comeAgain(d *aloneDelivery) {
	c.mu.Lock()
	c.again = append(c.again, d)
	c.mu.Unlock()
	c.poke()
}

// aloneDelivery is a message that a consumer without a group has in work.
type aloneDelivery struct {
	c       *aloneConsumer
	message *bus.Message
	attempt int
	settled atomic.Bool
}

func (d *aloneDelivery) Message() *bus.Message { return d.message }
func (d *aloneDelivery) Attempt() int          { return d.attempt }

func (d *aloneDelivery) settle() {
	if !d.settled.Swap(true) {
		<-d.c.slots
	}
}

// Ack ends the delivery: the stream keeps the message for others.
func (d *aloneDelivery) Ack() error {
	d.settle()
	return nil
}

// Requeue gives the message back.
func (d *aloneDelivery) Requeue() error {
	if d.settled.Load() {
		return nil
	}
	d.attempt++
	d.c.comeAgain(d)
	d.settle()
	return nil
}

// Retry has the message come again after the delay.
func (d *aloneDelivery) Retry(ctx context.Context, delay time.Duration) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	c := d.c
	if !c.q.AutoAck && d.settled.Swap(true) {
		return nil
	}
	next := &aloneDelivery{c: c, message: d.message, attempt: d.attempt + 1}
	c.mu.Lock()
	select {
	case <-c.ended:
		c.mu.Unlock()
		return nil
	default:
	}
	if len(c.timers) >= aloneDelayed {
		c.mu.Unlock()
		d.settled.Store(false)
		return fmt.Errorf("%w: queue %q has %d messages that wait to come again, which is the limit", bus.ErrUnavailable, c.q.Name, aloneDelayed)
	}
	var timer *time.Timer
	timer = time.AfterFunc(delay, func() {
		c.mu.Lock()
		delete(c.timers, timer)
		c.mu.Unlock()
		c.comeAgain(next)
	})
	c.timers[timer] = struct{}{}
	c.mu.Unlock()
	if !c.q.AutoAck {
		<-c.slots
	}
	return nil
}
