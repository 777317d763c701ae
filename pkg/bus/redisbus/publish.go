package redisbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Publish returns when Redis has added the message to its stream, and to disk where it is configured so.
func (d *Driver) Publish(ctx context.Context, m *bus.Message) error { return d.Begin(ctx, m)() }

// Begin hands the message to the one goroutine that sends. It waits for Redis the first time that a topic is used, and
// for a mandatory message, because it asks then who is bound.
func (d *Driver) Begin(ctx context.Context, m *bus.Message) (confirm func() error) {
	o, err := d.prepare(ctx, m)
	if err == nil {
		err = d.publishing.put(o)
	}
	if err != nil {
		return func() error { return err }
	}
	return func() error { return d.publishing.wait(o) }
}

// prepare makes of a message what is to be executed.
func (d *Driver) prepare(ctx context.Context, m *bus.Message) (*op, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	if err := d.check(m); err != nil {
		return nil, err
	}
	exchange := d.exchange(m.Exchange)
	if m.Mandatory && exchange != d.cfg.DeadLetterExchange { // which has its store
		err := d.patiently(ctx, func() error {
			found, err := d.registry.routable(ctx, exchange, m.RoutingKey)
			if err == nil && !found {
				return fmt.Errorf("%w: %q", bus.ErrUnroutable, m.RoutingKey)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	stream := d.streamOf(exchange, m.RoutingKey)
	if !d.registry.registered(stream) {
		err := d.patiently(ctx, func() error {
			if exchange != d.cfg.Exchange {
				return d.registry.registerExchange(ctx, exchange)
			}
			return d.registry.register(ctx, exchange, m.RoutingKey)
		})
		if err != nil {
			return nil, err
		}
	}
	owned := *m
	owned.Body = bytes.Clone(m.Body) // it may be sent after the caller has given up
	owned.Exchange = ""
	if exchange != d.cfg.Exchange {
		owned.Exchange = exchange
	}
	write := encode
	if owned.Headers[bus.HeaderEnvelope] != "" {
		write = encodeEnvelope
	}
	fields, err := write(&owned, 1)
	if err != nil {
		return nil, err
	}
	return &op{ctx: ctx, size: len(m.Body), add: func(p redis.Pipeliner) []redis.Cmder {
		cmds := make([]redis.Cmder, 0, 2)
		if owned.Expiration > 0 {
			last := redis.Z{Score: float64(time.Now().Add(owned.Expiration).UnixMilli()), Member: stream}
			cmds = append(cmds, p.ZAddGT(ctx, expiringKey, last))
		}
		if exchange == d.cfg.DeadLetterExchange {
			cmds = append(cmds, p.XAdd(ctx, &redis.XAddArgs{Stream: d.store(), Values: fields}))
		}
		return append(cmds, p.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: fields}))
	}}, nil
}

func (d *Driver) check(m *bus.Message) error {
	switch {
	case d.closing.Err() != nil:
		return bus.ErrClosed
	case m.RoutingKey == "" || len(m.RoutingKey) > 255:
		return fmt.Errorf("%w: a routing key of %d bytes; it is 1 to 255", bus.ErrInvalid, len(m.RoutingKey))
	case d.exchange(m.Exchange) == d.cfg.Exchange && !d.isTopic(m.RoutingKey):
		return d.noTopic(m.RoutingKey)
	case len(m.Body) > d.cfg.MaxMessageBytes:
		return fmt.Errorf("%w: a body of %d bytes, at most %d are allowed", bus.ErrInvalid, len(m.Body), d.cfg.MaxMessageBytes)
	case m.Priority > 9:
		return fmt.Errorf("%w: priority %d; it is 0 to 9", bus.ErrInvalid, m.Priority)
	case m.Expiration < 0:
		return fmt.Errorf("%w: expiration %s is negative", bus.ErrInvalid, m.Expiration)
	}
	return nil
}

// patiently calls until Redis answers, or ctx ends: nothing of a message has been sent yet.
func (d *Driver) patiently(ctx context.Context, call func() error) error {
	for pause := d.cfg.RetryDelay; ; pause = min(2*pause, d.cfg.MaxRetryDelay) {
		err := d.refuseCluster(ctx)
		if err == nil {
			err = call()
		}
		if err == nil || errors.Is(err, bus.ErrUnroutable) || errors.Is(err, bus.ErrInvalid) || errors.Is(err, bus.ErrClosed) {
			return err
		}
		if ctx.Err() == nil && !passing(err) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w (last: %w)", bus.ErrUnavailable, context.Cause(ctx), err)
		case <-d.closing.Done():
			return bus.ErrClosed
		}
	}
}

// exchange is the name of an exchange, also of the one that has none.
func (d *Driver) exchange(name string) string {
	if name == "" {
		return d.cfg.Exchange
	}
	return name
}

// streamOf is where a message lies.
func (d *Driver) streamOf(exchange, topic string) string {
	if exchange == d.cfg.Exchange {
		return topic
	}
	return exchangeKey(exchange)
}

// isTopic reports whether a topic may be a key. Redis is shared with stores and the mesh, whose keys have colons, and with
// keys of the bus's own.
func (d *Driver) isTopic(name string) bool {
	return name != "" && name != d.store() && !strings.ContainsAny(name, ":{}*#")
}

func (d *Driver) noTopic(name string) error {
	return fmt.Errorf("%w: %q cannot be a topic on Redis: it is the dead-letter store's name, or has one of : { } * #", bus.ErrInvalid, name)
}

// store is the stream that keeps the dead letters.
func (d *Driver) store() string { return d.cfg.DeadLetterExchange + "-store" }
