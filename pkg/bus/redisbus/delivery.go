package redisbus

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// groupDelivery is an entry that a group's consumer has in work.
type groupDelivery struct {
	c       *groupConsumer
	at      place
	message *bus.Message
	attempt int
	tried   int         // how often more when it is given back; who has settled it writes
	placed  bool        // it has a place of the prefetch window
	moved   atomic.Bool // a copy is elsewhere, which is noted under its place
	settled atomic.Bool
}

func (d *groupDelivery) Message() *bus.Message { return d.message }
func (d *groupDelivery) Attempt() int          { return d.attempt }

// Ack removes the message from the queue. It does not wait: what Redis does not learn, it delivers again.
func (d *groupDelivery) Ack() error {
	if d.settled.Swap(true) {
		return nil
	}
	d.leave()
	err := d.acknowledge()
	select {
	case <-d.c.closing:
		d.c.giveBackAll(false)
	default:
	}
	return err
}

// leave gives the place in the prefetch window back.
func (d *groupDelivery) leave() {
	if d.placed {
		<-d.c.slots
	}
}

// acknowledge tells Redis, and forgets the delivery when Redis has heard.
func (d *groupDelivery) acknowledge() error {
	return d.c.d.settling.put(d.acknowledging(func(error) {}))
}

// acknowledging is the op that acknowledges. The last one of a consumer that has ended takes its name off the groups.
func (d *groupDelivery) acknowledging(after func(error)) *op {
	o := &op{ctx: context.Background(), add: d.acknowledgement}
	o.after = func(err error) {
		d.forget()
		after(err)
		o.then = d.c.parting()
	}
	return o
}

func (d *groupDelivery) acknowledgement(p redis.Pipeliner) []redis.Cmder {
	ctx := context.Background()
	cmds := []redis.Cmder{p.XAck(ctx, d.at.stream, d.c.q.Name, d.at.id)}
	if d.at.stream == d.c.own.key {
		cmds = append(cmds, p.XDel(ctx, d.at.stream, d.at.id)) // nobody else reads it
	}
	return cmds
}

func (d *groupDelivery) forget() {
	c := d.c
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.work, d.at)
	if d.moved.Load() {
		c.moves = append(c.moves, d.at)
	}
}

// Requeue gives the message back: it goes to the end of what is for this queue alone, before all that is new.
func (d *groupDelivery) Requeue() error {
	if d.settled.Load() {
		return nil
	}
	return d.giveBack(1)
}

// giveBack settles a delivery by a copy in the queue's own stream, acknowledging the original once the copy is there. What a
// closed consumer's reader gives back, in whatever order, is first gathered. One that is settled stays where it went. It
// counts as tried so many times more.
func (d *groupDelivery) giveBack(tried int) error {
	select {
	case <-d.c.closing:
		d.c.gather(d, tried)
		return nil
	default:
	}
	if d.settled.Swap(true) {
		return nil
	}
	d.tried = tried
	return d.copyBack()
}

func (d *groupDelivery) copyBack() error {
	attempt := d.attempt + d.tried
	fields, err := d.fields(attempt)
	if err != nil {
		d.leave()
		return err
	}
	put := &op{ctx: context.Background(), size: len(d.message.Body)}
	put.add = func(p redis.Pipeliner) []redis.Cmder {
		return []redis.Cmder{d.c.d.run.back.Eval(put.ctx, p, []string{movedKey(d.c.q.Name), d.c.own.key}, d.move(fields)...)}
	}
	put.after = func(err error) {
		d.c.behind.Store(true)
		if put.then == nil || err != nil { // it is pending still, and found again as lost
			d.forget()
			d.leave()
		}
	}
	if !d.c.q.AutoAck {
		put.then = d.acknowledging(func(error) { d.leave() })
	}
	return d.c.d.settling.put(put)
}

func (d *groupDelivery) fields(attempt int) (map[string]any, error) {
	m := *d.message
	if m.Exchange == d.c.d.cfg.Exchange {
		m.Exchange = ""
	}
	return encode(&m, attempt)
}

// Retry has Redis hold a copy until the delay is over. When it fails the delivery is not settled yet, and can be given
// back with Requeue.
func (d *groupDelivery) Retry(ctx context.Context, delay time.Duration) error {
	if !d.c.q.AutoAck && d.settled.Load() {
		return nil
	}
	fields, err := d.fields(d.attempt + 1)
	if err != nil {
		return err
	}
	err = d.delay(ctx, fields, delay)
	if err != nil {
		return fmt.Errorf("delay a message of queue %q: %w", d.c.q.Name, err)
	}
	if d.c.q.AutoAck {
		d.forget()
		return nil
	}
	return d.Ack() // Redis has the copy: this is not given up
}

// delay has Redis hold an entry for this queue alone, in place of this delivery.
func (d *groupDelivery) delay(ctx context.Context, fields map[string]any, delay time.Duration) error {
	driver, queue := d.c.d, d.c.q.Name
	args := d.move(fields, max(0, delay.Milliseconds()))
	err := driver.patiently(ctx, func() error {
		return driver.run.delay.Run(ctx, driver.client, []string{movedKey(queue), delayedKey(queue)}, args...).Err()
	})
	if err == nil {
		driver.clock.look(queue, time.Now().Add(delay))
	}
	return err
}
