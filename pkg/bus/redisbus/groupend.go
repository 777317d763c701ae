package redisbus

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// lastWord bounds what an end may still tell Redis.
const lastWord = 2 * time.Second

// drain gives back what waits in the channel.
func (c *groupConsumer) drain() {
	for {
		select {
		case x := <-c.out:
			d := x.(*groupDelivery) //nolint:forcetypeassert // nothing else is put in
			_ = d.giveBack(0)       // gathered
		default:
			return
		}
	}
}

// finish takes the consumer off its queue.
func (c *groupConsumer) finish() {
	defer close(c.ended)
	defer c.reader.close()
	if !c.q.AutoAck {
		c.drain()
	}
	close(c.out)
	if !c.q.AutoAck && !c.giveBackAll(false) {
		<-time.After(gatherTime) // for what was taken and no handler has begun with
		c.giveBackAll(true)
	}
	c.d.clock.leave(c.q.Name)
	ctx, cancel := context.WithTimeout(context.Background(), lastWord)
	defer cancel()
	_ = c.d.settling.do(ctx, func(p redis.Pipeliner) []redis.Cmder { return nil }) // what was given back is there now
	if c.gone.Load() {
		c.stands.end()
	} else {
		went, err := c.stands.leave(ctx, c.d.registry, c.q.Name, c.q.Durable, c.id)
		if err == nil && went {
			_ = c.d.clear(ctx, c.q.Name, c.record)
		}
		_ = c.d.settling.do(ctx, func(p redis.Pipeliner) []redis.Cmder { return c.quit(ctx, p) })
	}
	for !c.forgetMoves(ctx) && ctx.Err() == nil { // a connection was cut: there are others
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	if len(c.inWork()) == 0 {
		c.d.forget(c)
	}
}

// quit takes the consumer's name off its groups, where nothing is pending under it.
func (c *groupConsumer) quit(ctx context.Context, p redis.Pipeliner) []redis.Cmder {
	var cmds []redis.Cmder
	for key := range c.known() {
		cmds = append(cmds, c.d.run.quit.Eval(ctx, p, []string{key}, c.q.Name, 0, c.id))
	}
	return cmds
}

// parting is what is left to do for a consumer that has ended when its last delivery is settled; nil: there are others.
func (c *groupConsumer) parting() *op {
	select {
	case <-c.ended:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.work) > 0 {
		return nil
	}
	notes := members(c.moves)
	c.moves = nil
	o := &op{ctx: context.Background(), after: func(error) { c.d.forget(c) }}
	o.add = func(p redis.Pipeliner) []redis.Cmder {
		cmds := c.quit(o.ctx, p)
		if len(notes) > 0 {
			cmds = append(cmds, p.ZRem(o.ctx, movedKey(c.q.Name), notes...))
		}
		return cmds
	}
	return o
}
