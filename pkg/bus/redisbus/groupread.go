package redisbus

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// read fetches and hands out until the consumer is closed.
func (c *groupConsumer) read() {
	defer c.finish()
	pause := c.d.cfg.RetryDelay
	for {
		places := c.take()
		if places == 0 {
			return
		}
		fetched, err := c.fetch(places)
		if err == nil {
			err = c.handOut(fetched, places)
		} else {
			c.free(places)
		}
		if err == nil {
			pause = c.d.cfg.RetryDelay
			continue
		}
		if c.gone.Load() {
			return
		}
		c.recover.Store(true) // an answer may have been lost
		if strings.Contains(err.Error(), "NOGROUP") || strings.Contains(err.Error(), "no longer exists") {
			if err = c.heal(); err == nil {
				continue
			}
		}
		c.d.log.Debug("a queue cannot be read; trying again", "queue", c.q.Name, "pause", pause, "error", err)
		select {
		case <-time.After(pause):
		case <-c.closing:
		}
		pause = min(2*pause, c.d.cfg.MaxRetryDelay)
	}
}

// heal makes the groups anew that were lost with their streams, or were destroyed.
func (c *groupConsumer) heal() error {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	there, err := c.d.registry.renew(ctx, c.q.Name, c.record, c.id)
	if err != nil {
		return err
	}
	if !there {
		c.end()
		return errDeleted
	}
	c.d.log.Warn("a queue lost its group on a stream; it begins again where it was last recorded", "queue", c.q.Name)
	if err := c.d.enrol(ctx, c.record); err != nil {
		return err
	}
	return c.join(ctx, false)
}

// take waits for a place, and takes what further ones are free. None: the consumer was closed.
func (c *groupConsumer) take() int {
	select {
	case <-c.closing:
		return 0
	default:
	}
	if c.q.AutoAck {
		return c.q.Prefetch
	}
	select {
	case c.slots <- struct{}{}:
	case <-c.closing:
		return 0
	}
	n := 1
	for n < 256 {
		select {
		case c.slots <- struct{}{}:
			n++
		default:
			return n
		}
	}
	return n
}

func (c *groupConsumer) free(places int) {
	if c.q.AutoAck {
		return
	}
	for range places {
		<-c.slots
	}
}

// fetched is an entry as it came.
type fetched struct {
	from   source
	entry  redis.XMessage
	before int // how often it was delivered before
}

// fetch asks for entries: what got lost, what others left, what was given back, what is new, in this order.
func (c *groupConsumer) fetch(count int) ([]fetched, error) {
	if c.recover.Load() && !c.q.AutoAck {
		lost, err := c.fetchLost()
		if err != nil || len(lost) > 0 {
			return lost, err
		}
		c.recover.Store(false)
	}
	if c.claim.Swap(false) && !c.q.AutoAck {
		if left, err := c.fetchLeft(count); err != nil || len(left) > 0 {
			return left, err
		}
	}
	c.mu.Lock()
	all := make(map[string]source, len(c.sources))
	keys := []string{c.own.key}
	for key, s := range c.sources {
		all[key] = s
		if key != c.own.key {
			keys = append(keys, key)
		}
	}
	c.mu.Unlock()
	if c.behind.Swap(false) {
		found, err := c.ask(keys[:1], all, count, -1)
		if err != nil || len(found) > 0 {
			c.behind.Store(true)
			return found, err
		}
	}
	found, err := c.ask(keys, all, count, blockTime)
	if len(found) > 0 && found[0].from.key == c.own.key {
		c.behind.Store(true)
	}
	return found, err
}

// ask reads new entries of streams, waiting for so long; -1: not at all.
func (c *groupConsumer) ask(keys []string, all map[string]source, count int, wait time.Duration) (list []fetched, err error) {
	args := &redis.XReadGroupArgs{Group: c.q.Name, Consumer: c.id, Count: int64(count), Block: wait, NoAck: c.q.AutoAck}
	args.Streams = append(args.Streams, keys...)
	for range keys {
		args.Streams = append(args.Streams, ">")
	}
	err = c.reader.read(func(ctx context.Context, conn *redis.Conn) error {
		streams, err := conn.XReadGroup(ctx, args).Result()
		for _, s := range streams {
			for _, entry := range s.Messages {
				list = append(list, fetched{from: all[s.Stream], entry: entry})
			}
		}
		return err
	})
	if errors.Is(err, redis.Nil) {
		err = nil
	}
	return list, err
}

// fetchLost is what this consumer was given and does not know of: the answer did not arrive.
func (c *groupConsumer) fetchLost() (list []fetched, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	mine := c.inHand() // as it is before: what is settled meanwhile was not lost
	for key, s := range c.known() {
		streams, err := c.d.client.XReadGroup(ctx, &redis.XReadGroupArgs{
			Group: c.q.Name, Consumer: c.id, Streams: []string{key, "0"}, Block: -1,
		}).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, err
		}
		for _, stream := range streams {
			for _, entry := range stream.Messages {
				if !mine[place{key, entry.ID}] {
					list = append(list, fetched{from: s, entry: entry, before: 1})
				}
			}
		}
	}
	return list, nil
}

// fetchLeft takes over what a consumer left that gives no sign of life any more.
func (c *groupConsumer) fetchLeft(count int) (list []fetched, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	mine := c.inHand()
	for key, s := range c.known() {
		entries, _, err := c.d.client.XAutoClaim(ctx, &redis.XAutoClaimArgs{
			Stream: key, Group: c.q.Name, Consumer: c.id, MinIdle: c.d.cfg.ClaimIdle, Start: "0-0", Count: int64(count),
		}).Result()
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			if !mine[place{key, entry.ID}] {
				list = append(list, fetched{from: s, entry: entry, before: 1})
			}
		}
	}
	if len(list) > 0 {
		c.d.log.Info("took over what another consumer left", "queue", c.q.Name, "count", len(list))
		c.claim.Store(true) // there may be more
	}
	return list, nil
}

func (c *groupConsumer) known() map[string]source {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]source, len(c.sources))
	for key, s := range c.sources {
		all[key] = s
	}
	return all
}

// inHand are the places of what is in work. Only the reader adds to them.
func (c *groupConsumer) inHand() map[place]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	mine := make(map[place]bool, len(c.work))
	for p := range c.work {
		mine[p] = true
	}
	return mine
}

// handOut puts deliveries into the channel, each in a place of its own; places are taken already.
func (c *groupConsumer) handOut(list []fetched, places int) error {
	defer func() { c.free(places) }()
	var deliveries []*groupDelivery
	for _, f := range list {
		d, err := c.receive(f)
		if err != nil {
			c.keep(deliveries)
			return err
		}
		if d != nil {
			deliveries = append(deliveries, d)
		}
	}
	for i, d := range deliveries {
		if c.q.AutoAck {
			d.settled.Store(true)
			select {
			case c.out <- d:
			case <-c.closing:
				for _, d := range deliveries[i:] {
					_ = d.giveBack(0) // gathered
				}
				return nil
			}
			continue
		}
		if places > 0 {
			places--
		} else {
			select {
			case c.slots <- struct{}{}:
			case <-c.closing:
				c.drain()
				for _, d := range deliveries[i:] {
					_ = d.giveBack(0) // gathered
				}
				return nil
			}
		}
		d.placed = true
		c.out <- d
	}
	return nil
}

// keep forgets deliveries that were not handed out; they are found again as lost.
func (c *groupConsumer) keep(list []*groupDelivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range list {
		delete(c.work, d.at)
	}
}

// receive makes a delivery of an entry; none of one that is not for the queue, has expired, or cannot be read.
func (c *groupConsumer) receive(f fetched) (*groupDelivery, error) {
	at := place{f.from.key, f.entry.ID}
	d := &groupDelivery{c: c, at: at}
	if len(f.entry.Values) == 0 { // deleted, and still pending
		d.settled.Store(true)
		_ = d.acknowledge() // else it comes again
		return nil, nil
	}
	if f.before > 0 {
		moved, err := c.wasMoved(at)
		if err != nil {
			return nil, err
		}
		if moved {
			d.settled.Store(true)
			d.moved.Store(true)
			_ = d.acknowledge() // else it comes again
			return nil, nil
		}
	}
	m, attempt, dropped, err := c.d.open(c.q.Name, f)
	if err != nil {
		return nil, err
	}
	d.message, d.attempt = m, attempt
	if dropped || !f.from.wants(m) {
		d.settled.Store(true)
		if !c.q.AutoAck {
			_ = d.acknowledge() // else it comes again
		}
		return nil, nil
	}
	if c.q.AutoAck {
		if f.from.key == c.own.key {
			return d, d.acknowledge()
		}
		return d, nil
	}
	c.mu.Lock()
	c.work[at] = d
	c.mu.Unlock()
	return d, nil
}

// open reads an entry. dropped: it was dead-lettered, because it has expired or cannot be read.
func (d *Driver) open(queue string, f fetched) (m *bus.Message, attempt int, dropped bool, err error) {
	m, attempt, err = decode(f.entry.Values)
	if envelope, found := decodeEnvelope(f.entry.Values); found && d.isDaprs(f.from.key) {
		m, attempt, err = envelope, 1, nil
		m.RoutingKey = f.from.topic // whatever it was published under
	}
	if err != nil {
		return &bus.Message{}, 0, true, d.quarantine(queue, f, err)
	}
	attempt += f.before
	if m.RoutingKey == "" {
		m.RoutingKey = f.from.topic
	}
	if m.Exchange == "" {
		m.Exchange = d.cfg.Exchange
	}
	if !lapsed(m, attempt, f.entry.ID) {
		return m, attempt, false, nil
	}
	return m, attempt, true, d.expire(queue, m, f)
}
