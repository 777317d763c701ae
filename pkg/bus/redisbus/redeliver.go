package redisbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// queueField names the queue of an entry in a driver's inbox.
const queueField = "bannou_queue"

// inboxAge is how long an inbox stays whose driver is gone.
const inboxAge = time.Hour

// Redeliver puts a message into the stream that is for the queue alone; for a queue without a group, into the inbox of
// the driver that reads it.
func (d *Driver) Redeliver(ctx context.Context, queue string, m *bus.Message) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	if err := d.check(m); err != nil {
		return err
	}
	var q record
	err := d.patiently(ctx, func() error {
		queues, err := d.registry.known(ctx)
		if err != nil {
			return err
		}
		var found bool
		if q, found = queues[queue]; !found {
			return fmt.Errorf("%w: there is no queue %q", bus.ErrUnroutable, queue)
		}
		return nil
	})
	if err != nil {
		return err
	}
	owned := *m
	owned.Body = bytes.Clone(m.Body)
	if owned.Exchange == d.cfg.Exchange {
		owned.Exchange = ""
	}
	fields, err := encode(&owned, 1)
	if err != nil {
		return err
	}
	return d.put(ctx, queue, q, fields)
}

func (d *Driver) put(ctx context.Context, queue string, q record, fields map[string]any) error {
	args := &redis.XAddArgs{Stream: ownKey(queue), NoMkStream: true, Values: fields}
	if q.Inbox != "" {
		fields[queueField] = queue
		args.Stream, args.NoMkStream = q.Inbox, false
	}
	var added *redis.StringCmd
	err := d.publishing.do(ctx, func(p redis.Pipeliner) []redis.Cmder {
		added = p.XAdd(ctx, args)
		cmds := []redis.Cmder{added}
		if q.Inbox != "" {
			cmds = append(cmds, p.Expire(ctx, q.Inbox, inboxAge))
		}
		return cmds
	})
	if err == nil && errors.Is(added.Err(), redis.Nil) {
		return fmt.Errorf("%w: there is no queue %q", bus.ErrUnroutable, queue)
	}
	return err
}

// takeIn gives what came to the inbox to its queues' consumers.
func (d *Driver) takeIn(list []entry) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	ids := make([]string, len(list))
	for i, e := range list {
		ids[i] = e.message.ID
		name, _ := e.message.Values[queueField].(string)
		m, attempt, err := decode(e.message.Values)
		if err != nil {
			d.drops.count(ctx, name, "unreadable", 1)
			continue
		}
		if m.Exchange == "" {
			m.Exchange = d.cfg.Exchange
		}
		taken := false
		for _, c := range d.all() {
			if alone, ok := c.(*aloneConsumer); ok && alone.q.Name == name {
				alone.comeAgain(&aloneDelivery{c: alone, message: m, attempt: attempt})
				taken = true
			}
		}
		if !taken {
			d.drops.count(ctx, name, "queue gone", 1)
		}
	}
	if err := d.client.XDel(ctx, inboxKey(d.id), ids...).Err(); err != nil {
		d.log.Debug("entries of the inbox could not be removed", "error", err)
	}
}
