package bus

import (
	"cmp"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// reading is how a subscription reads, all defaults resolved.
type reading struct {
	topic        string
	queue        Queue
	retry        RetryPolicy
	noDeadLetter bool
	service      string
	timeout      time.Duration
	throttle     *throttle
	meter        *meter
}

func (b *Bus) reading(topic string, o SubscriptionOptions) (reading, error) {
	if err := b.CheckTopic(topic, true); err != nil {
		return reading{}, err
	}
	if o.PrefetchCount < 0 {
		return reading{}, fmt.Errorf("%w: prefetch count %d is negative", ErrInvalid, o.PrefetchCount)
	}
	if o.Timeout < 0 {
		return reading{}, fmt.Errorf("%w: timeout %s is negative", ErrInvalid, o.Timeout)
	}
	if o.MaxPerSecond < 0 {
		return reading{}, fmt.Errorf("%w: %g handled a second is negative", ErrInvalid, o.MaxPerSecond)
	}
	own := o.Group == "" && o.Queue == ""
	if own && o.Durable {
		return reading{}, fmt.Errorf("%w: a durable subscription needs a group or a queue, by which it can be resumed", ErrInvalid)
	}
	if o.Expires < 0 || o.Expires > 0 && !o.Durable {
		return reading{}, fmt.Errorf("%w: queues that are durable, and no others, expire after some time, and %s is none", ErrInvalid, o.Expires)
	}
	name := o.Queue
	switch {
	case name != "":
	case own:
		id, err := uuid.NewRandom()
		if err != nil {
			return reading{}, fmt.Errorf("cannot name a queue: %w", err)
		}
		name = topic + ".dynamic." + id.String()
	default:
		if err := checkName("group", o.Group); err != nil {
			return reading{}, err
		}
		name = topic + "." + o.Group
	}
	if err := checkName("queue", name); err != nil {
		return reading{}, err
	}
	if err := b.cfg.checkFreeQueue(name); err != nil {
		return reading{}, err
	}
	policy := RetryPolicy{Immediate: b.cfg.ImmediateRetries, MaxAttempts: b.cfg.RetryMaxAttempts, Delay: b.cfg.RetryDelay}
	if o.Retry != nil {
		policy.Immediate = max(0, cmp.Or(o.Retry.Immediate, policy.Immediate))
		policy.MaxAttempts = max(0, cmp.Or(o.Retry.MaxAttempts, policy.MaxAttempts))
		policy.Delay = max(0, cmp.Or(o.Retry.Delay, policy.Delay))
	}
	return reading{
		topic: topic,
		queue: Queue{
			Name:      name,
			Bindings:  []Binding{{Pattern: topic}},
			Durable:   o.Durable,
			Exclusive: o.Exclusive || own,
			AutoAck:   o.AutoAck,
			Prefetch:  cmp.Or(o.PrefetchCount, b.cfg.PrefetchCount),
			Expires:   o.Expires,
		},
		retry:        policy,
		noDeadLetter: o.NoDeadLetter,
		service:      o.Service,
		timeout:      o.Timeout,
		throttle:     newThrottle(o.MaxPerSecond),
		meter:        b.telemetry.dynamic,
	}, nil
}
