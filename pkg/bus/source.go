package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// How long one attempt to declare a queue may take, and how long the pauses between attempts are.
const (
	firstAttempt   = 2 * time.Second // the wait of Run and Handle for a broker that is away
	furtherAttempt = 30 * time.Second
	firstPause     = 500 * time.Millisecond
	longestPause   = 5 * time.Second
	releaseTimeout = 5 * time.Second // for a driver to stop a consumer's flow
)

// A source reads one queue and has its deliveries handled, until its flow ends. It settles each delivery by what became of
// it.
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

	// handle is the whole way of one delivery. nil: it was handled or taken over; else it goes back to the queue.
	handle handler
	// ended is called when nothing more will be handled.
	ended func()

	crew  crew
	slots chan struct{} // bounds what is in hand where the driver does not; nil elsewhere

	begin     sync.Once
	attempted chan struct{} // closed after the first attempt to declare the queue, with declared or failure set
	declared  chan struct{} // closed when the queue is declared and read
	failure   error         // of the first attempt
	done      chan struct{} // closed when every delivery is settled
}

// newSource makes a source whose handlers' contexts carry the values of ctx, and end with it.
func (b *Bus) newSource(ctx context.Context, r reading, handle handler) *source {
	s := &source{
		bus:       b,
		reading:   r,
		handle:    handle,
		ended:     func() {},
		attempted: make(chan struct{}),
		declared:  make(chan struct{}),
		done:      make(chan struct{}),
	}
	if r.queue.AutoAck { // its deliveries are settled when they come, so the driver's window does not bound them
		s.slots = make(chan struct{}, r.queue.Prefetch)
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
	consumer, err := s.declare(firstAttempt)
	s.failure = err
	close(s.attempted)
	for pause := firstPause; err != nil; pause = min(2*pause, longestPause) {
		s.bus.log.Warn("subscription is waiting for its queue", "queue", s.queue.Name, "pause", pause, "error", err)
		if !wait(s.flow, pause) {
			s.finish()
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
		go s.read(c)
	})
}

func (s *source) finish() {
	s.stop()
	s.ended()
	s.bus.forget(s)
	s.abandon(ErrClosed)
	close(s.done)
}

// read takes the next delivery, and handles it itself after it has had another goroutine take the one after. So a delivery
// does not change goroutines on its way, and a source that is idle has one. The last one ends the source.
//
// At most Prefetch deliveries are in hand, because the driver delivers no more until some are settled.
func (s *source) read(c Consumer) {
	for {
		w, ok := s.take(c)
		if !ok {
			s.release(c)
			s.finish()
			return
		}
		if !s.crew.enter(w) {
			continue
		}
		s.bus.workers.do(job{s, c})
		for ; w != nil; w = s.crew.leave(w) {
			s.do(w)
		}
		return
	}
}

// take waits for a delivery until the flow or the consumer ends. When the flow has ended it takes none, though some are there
// already: what is given back may come again at once, and release gives back what is left in its order.
func (s *source) take(c Consumer) (w *work, ok bool) {
	if s.flow.Err() != nil {
		return nil, false
	}
	if s.slots != nil {
		select {
		case s.slots <- struct{}{}:
		case <-s.flow.Done():
			return nil, false
		}
	}
	deliveries := c.Deliveries()
	var d Delivery
	select {
	case d, ok = <-deliveries: // one that is there already costs a third of a wait for two channels
	default:
		select {
		case d, ok = <-deliveries:
		case <-s.flow.Done():
		}
	}
	if !ok {
		return nil, false
	}
	return newWork(s, d), true
}

// do handles one delivery and settles it.
func (s *source) do(w *work) {
	defer w.end()
	if s.slots != nil {
		defer func() { <-s.slots }()
	}
	err := ErrClosed
	if s.flow.Err() == nil {
		err = s.handle(w, w)
	} else if s.crew.putAside(w) {
		return
	}
	switch {
	case !w.claim(): // abandoned meanwhile
	case err != nil:
		s.requeue(w.delivery)
	default:
		s.settled(w.delivery.Ack(), "acknowledged")
	}
}

// release stops the consumer, gives back what no handler has begun with, and waits for the handlers until they are not to
// be waited for any longer: then it gives back what they have in hand.
func (s *source) release(c Consumer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.flow), releaseTimeout)
	defer cancel()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		if err := c.Close(ctx); err != nil && !errors.Is(err, ErrClosed) {
			s.bus.log.Warn("subscription was not closed cleanly", "queue", s.queue.Name, "error", err)
		}
	}()
	for _, d := range s.rest(c, closed) {
		s.requeue(d)
	}
	<-closed
	select {
	case <-s.crew.emptied():
	case <-s.working.Done():
		for _, w := range s.crew.abandon() {
			s.requeue(w.delivery)
		}
	}
}

// rest is what no handler has begun with, in its order, once the flow has ended and the consumer is closed: given back before,
// it would come again.
func (s *source) rest(c Consumer, closed <-chan struct{}) (list []Delivery) {
	fetched := s.drain(c, closed)
	for _, w := range s.crew.dismiss() {
		list = append(list, w.delivery)
	}
	return append(list, fetched...)
}

// drain takes what is in the channel until that, or the attempt to close it, has ended.
func (s *source) drain(c Consumer, closed <-chan struct{}) (list []Delivery) {
	for {
		select {
		case d, ok := <-c.Deliveries():
			if !ok {
				return list
			}
			list = append(list, d)
		case <-closed: // its driver may have had no answer; what is in the channel is there all the same
			for {
				select {
				case d, ok := <-c.Deliveries():
					if !ok {
						return list
					}
					list = append(list, d)
				default:
					return list
				}
			}
		}
	}
}

func (s *source) requeue(d Delivery) {
	s.meter.requeued(s.working)
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
