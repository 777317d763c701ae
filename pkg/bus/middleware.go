package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// middleware is what every handler is wrapped in, outermost first. The order is the promise: dead-lettering outside
// retrying, else nothing is ever retried; the timeout inside retrying, so that each call has its own.
//
// The recoverer stands twice: outermost, where it guards this machinery and the plain Watermill handlers that read
// from elsewhere, and innermost, so that a handler's panic is a failure to be retried like any other.
//
// A message that does not come from one of the bus's own subscriptions passes through untouched.
func (b *Bus) middleware() []message.HandlerMiddleware {
	return []message.HandlerMiddleware{
		recoverer,
		b.observe,
		b.deadLetter,
		b.retry,
		limitTime,
		recoverer,
	}
}

// wrap puts the middleware around a handler, as the router does for its own.
func wrap(h message.HandlerFunc, all []message.HandlerMiddleware) message.HandlerFunc {
	for i := len(all) - 1; i >= 0; i-- {
		h = all[i](h)
	}
	return h
}

// panicError is a handler's panic as an error.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("the handler panicked: %v", e.value) }

func recoverer(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) (out []*message.Message, err error) {
		defer func() {
			if v := recover(); v != nil {
				out, err = nil, &panicError{value: v, stack: debug.Stack()}
			}
		}()
		return next(msg)
	}
}

// observe is tracing and metrics.
func (b *Bus) observe(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		w := workFrom(msg.Context())
		if w == nil {
			return next(msg)
		}
		ctx, done := b.telemetry.handling(msg.Context(), w)
		msg.SetContext(ctx)
		out, err := next(msg)
		done(err)
		return out, err
	}
}

// requeueError is a failure after which the delivery goes back to its queue as it is.
type requeueError struct{ err error }

func (e *requeueError) Error() string { return "given back to the queue: " + e.err.Error() }
func (e *requeueError) Unwrap() error { return e.err }

// deadLetter takes over what the handler and its retries could not do. Only when the broker has confirmed the dead
// letter is the delivery acknowledged; if it does not, the delivery is tried again later.
func (b *Bus) deadLetter(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		out, err := next(msg)
		w := workFrom(msg.Context())
		if err == nil || w == nil {
			return out, err
		}
		if requeue := (*requeueError)(nil); errors.As(err, &requeue) {
			return nil, err
		}
		return nil, b.giveUp(msg.Context(), w, err)
	}
}

func (b *Bus) giveUp(ctx context.Context, w *work, cause error) error {
	why := discardReason(cause)
	log := b.log.With("queue", w.source.queue.Name, "topic", w.message.RoutingKey, "messageId", w.message.ID,
		"attempt", w.delivery.Attempt(), "reason", why, "error", cause)
	if w.source.noDeadLetter {
		b.telemetry.dropped.Add(ctx, 1, w.source.label, reason(why))
		log.LogAttrs(ctx, slog.LevelError, "event dropped: it could not be handled, and its subscription keeps no dead letters")
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
	if err := b.driver.Publish(bounded, letter); err != nil { //nolint:contextcheck // see above
		log.LogAttrs(ctx, slog.LevelError, "event could not be dead-lettered", slog.Any("publishError", err))
		return b.later(ctx, w, fmt.Errorf("cannot dead-letter: %w", err))
	}
	b.telemetry.deadLettered.Add(ctx, 1, w.source.label, reason(why))
	log.LogAttrs(ctx, slog.LevelError, "event dead-lettered: it could not be handled")
	return nil
}

// retry calls a failed handler again: at once, on the first delivery; then by having the broker deliver it again
// later, while this consumer goes on with others. What it cannot mend it passes on.
func (b *Bus) retry(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		w := workFrom(msg.Context())
		if w == nil {
			return next(msg)
		}
		ctx := msg.Context()
		out, err := b.call(msg, w, next)
		if err == nil {
			b.telemetry.handled.Add(ctx, 1, w.source.label)
			return out, nil
		}
		if w.interrupted() {
			return nil, &requeueError{err}
		}
		if discardReason(err) != DiscardMaxRetries || w.source.queue.AutoAck || w.delivery.Attempt() > w.source.retry.MaxAttempts {
			return nil, err
		}
		b.log.LogAttrs(ctx, slog.LevelWarn, "handler failed, the event will be delivered again",
			slog.String("queue", w.source.queue.Name), slog.String("topic", w.message.RoutingKey),
			slog.String("messageId", w.message.ID), slog.Int("attempt", w.delivery.Attempt()),
			slog.Duration("delay", w.source.retry.Delay), slog.Any("error", err))
		return nil, b.later(ctx, w, err)
	}
}

// call runs the handler, on the first delivery again and again up to the immediate retries.
func (b *Bus) call(msg *message.Message, w *work, next message.HandlerFunc) ([]*message.Message, error) {
	ctx := msg.Context()
	immediate := 0
	if w.delivery.Attempt() == 1 || w.source.queue.AutoAck {
		immediate = w.source.retry.Immediate
	}
	for try := 0; ; try++ {
		out, err := next(msg)
		if err == nil {
			return out, nil
		}
		b.failed(ctx, w, err)
		if try >= immediate || w.interrupted() || discardReason(err) != DiscardMaxRetries {
			return nil, err
		}
		b.telemetry.retried.Add(ctx, 1, w.source.label, metric.WithAttributes(attribute.String("when", "at-once")))
	}
}

func (b *Bus) failed(ctx context.Context, w *work, err error) {
	b.telemetry.failed.Add(ctx, 1, w.source.label)
	fail(trace.SpanFromContext(ctx), err)
	if p := (*panicError)(nil); errors.As(err, &p) {
		b.log.LogAttrs(ctx, slog.LevelError, "handler panicked", slog.String("queue", w.source.queue.Name),
			slog.Any("panic", p.value), slog.String("stack", string(p.stack)))
	}
}

// later has the broker deliver it again after the delay. If it cannot, the delivery goes back to its queue.
func (b *Bus) later(ctx context.Context, w *work, cause error) error {
	if w.source.queue.AutoAck {
		b.telemetry.dropped.Add(ctx, 1, w.source.label, reason(discardReason(cause)))
		return nil
	}
	bounded, cancel := context.WithTimeout(w.source.working, b.cfg.PublishTimeout)
	defer cancel()
	if err := w.delivery.Retry(bounded, w.source.retry.Delay); err != nil { //nolint:contextcheck // the handler's may have timed out
		return &requeueError{fmt.Errorf("%w (and the broker did not take it over for later: %w)", cause, err)}
	}
	b.telemetry.retried.Add(ctx, 1, w.source.label, metric.WithAttributes(attribute.String("when", "later")))
	return nil
}

// limitTime gives each call of a handler its subscription's timeout.
func limitTime(next message.HandlerFunc) message.HandlerFunc {
	return func(msg *message.Message) ([]*message.Message, error) {
		w := workFrom(msg.Context())
		if w == nil || w.source.timeout == 0 {
			return next(msg)
		}
		outer := msg.Context()
		ctx, cancel := context.WithTimeout(outer, w.source.timeout)
		defer cancel()
		msg.SetContext(ctx)
		defer msg.SetContext(outer)
		return next(msg)
	}
}
