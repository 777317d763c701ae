package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// reading is how a subscription reads, all defaults resolved.
type reading struct {
	topic        string
	queue        Queue
	retry        RetryPolicy
	noDeadLetter bool
	timeout      time.Duration
	label        metric.MeasurementOption
}

func (b *Bus) reading(topic string, o SubscriptionOptions) (reading, error) {
	if err := checkTopic(topic, true); err != nil {
		return reading{}, err
	}
	if o.PrefetchCount < 0 {
		return reading{}, fmt.Errorf("%w: prefetch count %d is negative", ErrInvalid, o.PrefetchCount)
	}
	if o.Timeout < 0 {
		return reading{}, fmt.Errorf("%w: timeout %s is negative", ErrInvalid, o.Timeout)
	}
	own := o.Group == "" && o.Queue == ""
	if own && o.Durable {
		return reading{}, fmt.Errorf("%w: a durable subscription needs a group or a queue, by which it can be resumed", ErrInvalid)
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
		},
		retry:        policy,
		noDeadLetter: o.NoDeadLetter,
		timeout:      o.Timeout,
		label:        metric.WithAttributeSet(attribute.NewSet(attribute.String("subscription", "dynamic"))),
	}, nil
}

// How long one attempt to declare a queue may take, and how long the pauses between attempts are.
const (
	firstAttempt   = 2 * time.Second // the wait of Run and Handle for a broker that is away
	furtherAttempt = 30 * time.Second
	firstPause     = 500 * time.Millisecond
	longestPause   = 30 * time.Second
	releaseTimeout = 5 * time.Second // for a driver to stop a consumer's flow
)

// A source reads one queue and passes its deliveries on, until its flow ends. It settles each delivery by what became
// of its message.
//
// Two contexts end it, one after the other: flow (take no more deliveries) and working (do not wait for handlers any
// longer: their deliveries go back to the queue).
type source struct {
	bus *Bus
	reading

	flow    context.Context //nolint:containedctx // a life of its own, not a call's
	stop    context.CancelFunc
	working context.Context //nolint:containedctx // as flow
	abandon context.CancelCauseFunc

	// pass hands a message to its handler and does not wait for it; false: the flow ended first.
	pass func(*message.Message) bool
	// ended is called when nothing more will be passed.
	ended func()

	begin     sync.Once
	attempted chan struct{} // closed after the first attempt to declare the queue, with declared or failure set
	declared  chan struct{} // closed when the queue is declared and read
	failure   error         // of the first attempt
	done      chan struct{} // closed when every delivery is settled
}

// newSource makes a source whose handlers' contexts carry the values of ctx, and end with it.
func (b *Bus) newSource(ctx context.Context, r reading) *source {
	s := &source{
		bus:       b,
		reading:   r,
		ended:     func() {},
		attempted: make(chan struct{}),
		declared:  make(chan struct{}),
		done:      make(chan struct{}),
	}
	s.flow, s.stop = context.WithCancel(context.Background())
	s.working, s.abandon = context.WithCancelCause(ctx)
	return s
}

// start declares the queue in the background, again and again until it succeeds, and then reads it. It returns after
// the first attempt; what comes of it is in failure.
func (s *source) start() {
	s.begin.Do(func() { go s.live() })
	<-s.attempted
}

func (s *source) live() {
	defer s.finish()
	consumer, err := s.declare(firstAttempt)
	s.failure = err
	close(s.attempted)
	for pause := firstPause; err != nil; pause = min(2*pause, longestPause) {
		s.bus.log.Warn("subscription is waiting for its queue", "queue", s.queue.Name, "pause", pause, "error", err)
		if !wait(s.flow, pause) {
			return
		}
		consumer, err = s.declare(furtherAttempt)
	}
	close(s.declared)
	s.read(consumer)
}

func (s *source) declare(limit time.Duration) (Consumer, error) {
	ctx, cancel := context.WithTimeout(s.flow, limit)
	defer cancel()
	return s.bus.driver.Subscribe(ctx, s.queue)
}

// adopt reads with a consumer that exists already.
func (s *source) adopt(c Consumer) {
	s.begin.Do(func() {
		close(s.attempted)
		close(s.declared)
		go func() {
			defer s.finish()
			s.read(c)
		}()
	})
}

func (s *source) finish() {
	s.stop()
	s.ended()
	s.bus.forget(s)
	s.abandon(ErrClosed)
	close(s.done)
}

// read takes deliveries, at most Prefetch in work at a time, until the flow or the consumer ends.
func (s *source) read(c Consumer) {
	var work lanes
	slots := make(chan struct{}, s.queue.Prefetch)
	for {
		select {
		case slots <- struct{}{}:
		case <-s.flow.Done():
			s.release(c, &work)
			return
		}
		select {
		case d, ok := <-c.Deliveries():
			if !ok {
				s.release(c, &work)
				return
			}
			m := d.Message()
			work.do(m.Headers[HeaderPartitionKey], func() {
				defer func() { <-slots }()
				s.handle(d, m)
			})
		case <-s.flow.Done():
			s.release(c, &work)
			return
		}
	}
}

// release stops the consumer, gives back what it had in hand, and waits for the handlers.
func (s *source) release(c Consumer, work *lanes) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.flow), releaseTimeout)
	defer cancel()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if err := c.Close(ctx); err != nil && !errors.Is(err, ErrClosed) {
			s.bus.log.Warn("subscription was not closed cleanly", "queue", s.queue.Name, "error", err)
		}
	}()
	for deliveries := c.Deliveries(); closed != nil; {
		select {
		case d, ok := <-deliveries:
			if !ok {
				deliveries = nil
				continue
			}
			s.requeue(d)
		case <-closed:
			closed = nil
		}
	}
	for drained := false; !drained; {
		select {
		case d, ok := <-c.Deliveries():
			if drained = !ok; ok {
				s.requeue(d)
			}
		default:
			drained = true
		}
	}
	work.wait()
}

// handle passes one delivery on and settles it.
func (s *source) handle(d Delivery, m *Message) {
	if s.flow.Err() != nil {
		s.requeue(d)
		return
	}
	ctx, cancel := context.WithCancel(s.working)
	defer cancel()
	msg := message.NewMessage(m.ID, m.Body)
	maps.Copy(msg.Metadata, m.Headers)
	msg.SetContext(context.WithValue(ctx, workKey{}, &work{source: s, delivery: d, message: m}))
	if !s.pass(msg) {
		s.requeue(d)
		return
	}
	select {
	case <-msg.Acked():
		s.settled(d.Ack(), "acknowledged")
	case <-msg.Nacked():
		s.requeue(d)
	case <-s.working.Done():
		s.requeue(d)
	}
}

func (s *source) requeue(d Delivery) {
	s.bus.telemetry.requeued.Add(s.working, 1, s.label)
	s.settled(d.Requeue(), "requeued")
}

// settled logs what could not be settled: the broker delivers it again.
func (s *source) settled(err error, what string) {
	if err != nil && !errors.Is(err, ErrClosed) {
		s.bus.log.LogAttrs(s.working, slog.LevelWarn, "delivery could not be "+what+", the broker will deliver it again",
			slog.String("queue", s.queue.Name), slog.Any("error", err))
	}
}

// end stops the flow and waits for the handlers until ctx ends; then it gives their deliveries back.
func (s *source) end(ctx context.Context) error {
	s.stop()
	s.begin.Do(func() { // it was never started
		close(s.attempted)
		s.finish()
	})
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	s.abandon(ErrClosed)
	<-s.done
	return fmt.Errorf("queue %q: handlers were still at work, their deliveries were given back: %w", s.queue.Name, context.Cause(ctx))
}

// wait returns after the pause, or false at once when ctx ends.
func wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
