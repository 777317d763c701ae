package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/trace"
)

// A handler is what becomes of one delivery: a user's handler, or one with middleware around it. The context is the
// work's, or one made from it.
type handler func(ctx context.Context, w *work) error

// guarded wraps a handler in the bus's middleware, outermost first. The order is the promise: dead-lettering outside
// retrying, else nothing is ever retried; the timeout inside retrying, so that each call has its own.
//
// The recoverer stands twice: outermost, where it guards this machinery, and innermost, so that a handler's panic is a
// failure to be retried like any other.
func (b *Bus) guarded(h handler) handler {
	return recovered(b.observed(b.deadLettered(b.retried(throttled(timed(recovered(h)))))))
}

// plain is the same middleware around a plain Watermill handler on the router. A message that does not come from one of
// the bus's own subscriptions passes through with nothing but a recoverer.
func (b *Bus) plain(next message.HandlerFunc) message.HandlerFunc {
	type call struct {
		msg *message.Message
		out []*message.Message
	}
	type callKey struct{}
	guarded := b.guarded(func(ctx context.Context, _ *work) (err error) {
		c, _ := ctx.Value(callKey{}).(*call)
		c.msg.SetContext(ctx)
		c.out, err = next(c.msg)
		return err
	})
	foreign := recovered(func(ctx context.Context, _ *work) (err error) {
		c, _ := ctx.Value(callKey{}).(*call)
		c.out, err = next(c.msg)
		return err
	})
	return func(msg *message.Message) ([]*message.Message, error) {
		c := &call{msg: msg}
		ctx := context.WithValue(msg.Context(), callKey{}, c)
		w := workFrom(ctx)
		way := guarded
		if w == nil {
			way = foreign
		}
		if err := way(ctx, w); err != nil {
			return nil, err
		}
		return c.out, nil
	}
}

// panicError is a handler's panic as an error.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("the handler panicked: %v", e.value) }

func recovered(next handler) handler {
	return func(ctx context.Context, w *work) (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = &panicError{value: v, stack: debug.Stack()}
			}
		}()
		return next(ctx, w)
	}
}

// observed is tracing and metrics of a whole delivery.
func (b *Bus) observed(next handler) handler {
	return func(ctx context.Context, w *work) error {
		ctx, done := b.telemetry.receiving(ctx, w)
		err := next(ctx, w)
		done(err)
		return err
	}
}

// requeueError is a failure after which the delivery goes back to its queue as it is.
type requeueError struct{ err error }

func (e *requeueError) Error() string { return "given back to the queue: " + e.err.Error() }
func (e *requeueError) Unwrap() error { return e.err }

func isRequeue(err error) bool {
	var requeue *requeueError
	return errors.As(err, &requeue)
}

// deadLettered takes over what the handler and its retries could not do. Only when the broker has confirmed the dead
// letter is the delivery acknowledged; if it does not, the delivery is tried again later.
func (b *Bus) deadLettered(next handler) handler {
	return func(ctx context.Context, w *work) error {
		err := next(ctx, w)
		if err == nil || isRequeue(err) {
			return err
		}
		return b.giveUp(ctx, w, err)
	}
}

func (b *Bus) giveUp(ctx context.Context, w *work, cause error) error {
	why := discardReason(cause)
	log := b.log.With("queue", w.source.queue.Name, "topic", w.message.RoutingKey, "messageId", w.message.ID,
		"attempt", w.delivery.Attempt(), "reason", why, "error", cause)
	if w.source.noDeadLetter {
		w.source.meter.dropped(ctx, why)
		log.LogAttrs(ctx, slog.LevelError, "event dropped: it could not be handled, and its subscription keeps no dead letters")
		b.tell(ctx, failureOf(w, FailureDropped, why, cause))
		return nil
	}
	letter := DeadLetter(w.message, Discard{
		Exchange:           b.cfg.Exchange,
		DeadLetterExchange: b.cfg.DeadLetterExchange,
		Queue:              w.source.queue.Name,
		Reason:             why,
		Attempt:            w.delivery.Attempt(),
		Err:                cause,
		At:                 time.Now(),
	})
	// Not the handler's context: that may have timed out.
	bounded, cancel := context.WithTimeout(w.source.working, b.cfg.PublishTimeout)
	defer cancel()
	if err := b.publishLetter(bounded, letter); err != nil { //nolint:contextcheck // see above
		log.LogAttrs(ctx, slog.LevelError, "event could not be dead-lettered", slog.Any("publishError", err))
		delay := w.source.retry.Delay
		if errors.Is(err, ErrInvalid) { // soon it would end no better
			delay = max(delay, refusedPause)
		}
		return b.later(ctx, w, fmt.Errorf("cannot dead-letter: %w", err), delay)
	}
	w.source.meter.deadLettered(ctx, why)
	log.LogAttrs(ctx, slog.LevelError, "event dead-lettered: it could not be handled")
	b.tell(ctx, failureOf(w, FailureDeadLettered, why, cause))
	return nil
}

// retried calls a failed handler again: at once, on the first delivery; then by having the broker deliver it again
// later, while this consumer goes on with others. What it cannot mend it passes on.
func (b *Bus) retried(next handler) handler {
	return func(ctx context.Context, w *work) error {
		err := b.call(ctx, w, next)
		if err == nil {
			w.source.meter.handled(ctx)
			return nil
		}
		if isRequeue(err) {
			return err
		}
		if w.interrupted() {
			return &requeueError{err}
		}
		if discardReason(err) != DiscardMaxRetries || w.source.queue.AutoAck {
			return err
		}
		delay, postponed := w.source.retry.Delay, false
		if pause := pauseOf(err); pause > 0 {
			delay, postponed = pause, w.postpone(time.Now())
		}
		if !postponed && w.failures() > w.source.retry.MaxAttempts {
			return err
		}
		b.log.LogAttrs(ctx, slog.LevelWarn, "handler failed, the event will be delivered again",
			slog.String("queue", w.source.queue.Name), slog.String("topic", w.message.RoutingKey),
			slog.String("messageId", w.message.ID), slog.Int("attempt", w.delivery.Attempt()),
			slog.Duration("delay", delay), slog.Any("error", err))
		return b.later(ctx, w, err, delay)
	}
}

// call runs the handler, on the first delivery again and again up to the immediate retries.
func (b *Bus) call(ctx context.Context, w *work, next handler) error {
	immediate := 0
	if w.failures() == 1 || w.source.queue.AutoAck {
		immediate = w.source.retry.Immediate
	}
	for try := 0; ; try++ {
		calling, done := b.telemetry.handling(ctx, w)
		err := next(calling, w)
		done(err)
		if err == nil || isRequeue(err) {
			return err
		}
		b.failed(calling, w, err)
		if try >= immediate || w.interrupted() || discardReason(err) != DiscardMaxRetries || pauseOf(err) > 0 && !w.source.queue.AutoAck {
			return err
		}
		w.source.meter.retried(ctx, "at-once")
	}
}

func (b *Bus) failed(ctx context.Context, w *work, err error) {
	w.source.meter.failed(ctx)
	fail(trace.SpanFromContext(ctx), err)
	if p := (*panicError)(nil); errors.As(err, &p) {
		b.log.LogAttrs(ctx, slog.LevelError, "handler panicked", slog.String("queue", w.source.queue.Name),
			slog.Any("panic", p.value), slog.String("stack", string(p.stack)))
		b.tell(ctx, failureOf(w, FailurePanicked, string(FailurePanicked), err))
	}
}

// later has the broker deliver it again after the delay. If it cannot, the delivery goes back to its queue.
func (b *Bus) later(ctx context.Context, w *work, cause error, delay time.Duration) error {
	if w.source.queue.AutoAck {
		w.source.meter.dropped(ctx, discardReason(cause))
		b.tell(ctx, failureOf(w, FailureDropped, discardReason(cause), cause))
		return nil
	}
	bounded, cancel := context.WithTimeout(w.source.working, b.cfg.PublishTimeout)
	defer cancel()
	if err := w.delivery.Retry(bounded, delay); err != nil { //nolint:contextcheck // the handler's may have timed out
		return &requeueError{fmt.Errorf("%w (and the broker did not take it over for later: %w)", cause, err)}
	}
	w.source.meter.retried(ctx, "later")
	return nil
}

// timed gives each call of a handler its subscription's timeout.
func timed(next handler) handler {
	return func(ctx context.Context, w *work) error {
		if w.source.timeout == 0 {
			return next(ctx, w)
		}
		ctx, cancel := context.WithTimeout(ctx, w.source.timeout)
		defer cancel()
		return next(ctx, w)
	}
}
