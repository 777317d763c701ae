package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// An outcome is what became of one event of a batch.
type outcome struct {
	done   bool   // it has arrived, as itself or as a dead letter
	held   bool   // the broker refuses its topic: it is tried again when its claim ends
	poison string // why no broker takes it
	err    error  // why it has to be tried again
}

// A sending is a batch on its way to the broker: many events under way at a time, begun in order by one goroutine, which
// is the order in which they arrive.
//
// Order within a key holds through a failure too. After the first one nothing more is begun. What failed is sent again by
// the next round, and so are those of its key that were begun after it, confirmed or not, behind it: whoever follows a key
// may see events of it twice, and sees its last ones in order. Nothing is begun either when the claim may be over: another
// relay may have sent what follows by then.
type sending struct {
	r        *Relay
	ctx      context.Context //nolint:containedctx // of the whole batch
	progress *time.Timer     // stops the sending when nothing was confirmed for sendTimeout

	batch    []state.OutboxEntry
	outcomes []outcome
	window   []flight
	failed   bool
	behind   map[string]bool // keys that have an event to be tried again; more of them are not begun
}

// A flight is an event that was begun.
type flight struct {
	at          int
	options     bus.PublishOptions
	publication *bus.Publication
}

// send sends a batch.
func (r *Relay) send(ctx context.Context, batch []state.OutboxEntry) []outcome {
	s := &sending{r: r, batch: batch, outcomes: make([]outcome, len(batch)), behind: map[string]bool{}}
	var stop context.CancelCauseFunc
	s.ctx, stop = context.WithCancelCause(ctx)
	defer stop(nil)
	s.progress = time.AfterFunc(sendTimeout, func() { stop(fmt.Errorf("%w: nothing was confirmed in %s", bus.ErrUnavailable, sendTimeout)) })
	defer s.progress.Stop()
	for i := range batch {
		if len(s.window) == inFlight {
			s.land() //nolint:contextcheck // as below
		}
		if s.failed || s.over() {
			break
		}
		s.begin(i) //nolint:contextcheck // a batch has one context
	}
	for len(s.window) > 0 {
		s.land() //nolint:contextcheck // as above
	}
	return s.outcomes
}

// over reports whether the batch's time has ended. A process that was stopped sees that before the context's timer has told it.
func (s *sending) over() bool {
	until, bound := s.ctx.Deadline()
	return s.ctx.Err() != nil || bound && !time.Now().Before(until)
}

// traced is a context with the trace that an event was published in.
func (s *sending) traced(options bus.PublishOptions) context.Context {
	return propagation.TraceContext{}.Extract(s.ctx, propagation.MapCarrier(options.Headers))
}

// begin hands one event to the broker's connection, without waiting for its confirmation.
func (s *sending) begin(i int) {
	e := &s.batch[i]
	switch {
	case s.behind[e.Key]:
		return
	case !s.r.Away() && s.r.refuses(e.Topic): // while the broker is away, one row is the question whether it is back
		s.hold(i)
		return
	}
	options, err := readOptions(e)
	if err != nil {
		s.outcomes[i].poison = err.Error()
		return
	}
	if options.Expiration > 0 {
		left := options.Expiration - time.Since(e.CreatedAt)
		if left < time.Millisecond {
			s.ended(i, s.r.giveUp(s.traced(options), e, options, bus.DiscardExpired, errors.New("it expired before the broker was back")))
			return
		}
		options.Expiration = left
	}
	publication, err := s.r.cfg.Bus.PublishRawAsync(s.traced(options), e.Topic, e.Body, options)
	switch {
	case err == nil:
		s.window = append(s.window, flight{at: i, options: options, publication: publication})
	case errors.Is(err, bus.ErrInvalid):
		s.outcomes[i].poison = err.Error()
	default:
		s.ended(i, outcome{err: err})
	}
}

// land waits for the confirmation of the event that was begun first.
func (s *sending) land() {
	f := s.window[0]
	s.window = s.window[1:]
	e := &s.batch[f.at]
	err := f.publication.Wait()
	switch {
	case err == nil && s.behind[e.Key]:
		s.outcomes[f.at] = outcome{} // it comes again, behind the one of its key that has to
	case err == nil:
		s.progress.Reset(sendTimeout)
		s.r.cfg.Sent(s.traced(f.options), e.Topic, f.publication.ID(), len(e.Body))
		s.outcomes[f.at].done = true
		delete(s.r.refused, e.Topic)
	case errors.Is(err, bus.ErrInvalid):
		s.outcomes[f.at].poison = err.Error()
	case errors.Is(err, bus.ErrUnroutable):
		s.ended(f.at, s.r.giveUp(s.traced(f.options), e, f.options, bus.DiscardPermanent, err))
	default:
		s.ended(f.at, outcome{err: err})
	}
}

// hold leaves an event to the end of its claim, and with it those of its key.
func (s *sending) hold(i int) {
	s.outcomes[i].held = true
	if key := s.batch[i].Key; key != "" {
		s.behind[key] = true
	}
}

// ended notes an outcome. After a failure nothing more is begun; one queue that is full is none.
func (s *sending) ended(i int, out outcome) {
	s.outcomes[i] = out
	if out.err == nil {
		return
	}
	if errors.Is(out.err, bus.ErrRefused) {
		s.r.refused[s.batch[i].Topic] = time.Now().Add(refusedPause)
		s.hold(i)
		return
	}
	if key := s.batch[i].Key; key != "" {
		s.behind[key] = true
	}
	s.failed = true
}

// giveUp sends an event to the dead letters.
func (r *Relay) giveUp(ctx context.Context, e *state.OutboxEntry, options bus.PublishOptions, reason string, cause error) outcome {
	err := r.cfg.Bus.PublishDeadLetter(ctx, e.Topic, e.Body, options, reason, cause)
	switch {
	case err == nil:
		r.metrics.failed.Add(ctx, 1, r.metrics.of, metric.WithAttributes(attribute.String("reason", reason)))
		r.cfg.Logger.WarnContext(ctx, "an event of the outbox went to the dead letters", "topic", e.Topic, "message", options.MessageID, "reason", cause)
		return outcome{done: true}
	case errors.Is(err, bus.ErrInvalid):
		return outcome{poison: cause.Error() + "; and as a dead letter: " + err.Error()}
	default:
		return outcome{err: err}
	}
}
