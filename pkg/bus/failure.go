package bus

import (
	"context"
	"fmt"
	"log/slog"
)

// A FailureKind says what became of an event that a handler, or nobody, could handle.
type FailureKind string

// The kinds of failures.
const (
	// FailurePanicked: a handler panicked. The event is retried like after any other failure, so that it may be handled
	// yet, or be told of again as one of the other kinds.
	FailurePanicked FailureKind = "panicked"
	// FailureDeadLettered: the event is kept as a dead letter.
	FailureDeadLettered FailureKind = "dead-lettered"
	// FailureDropped: the event is gone: its subscription keeps no dead letters.
	FailureDropped FailureKind = "dropped"
)

// A Failure is what Config.OnFailure is told of.
type Failure struct {
	Kind          FailureKind
	Service       string // SubscriptionOptions.Service, or Config.AppID
	Queue         string // of the subscription; empty where the event never came to one
	Topic         string
	MessageID     string
	CorrelationID string
	Reason        string // one of the Discard constants; of FailurePanicked "panicked"
	Err           error  // never nil
}

// tell calls OnFailure. That what it calls fails is no reason to handle an event again.
func (b *Bus) tell(ctx context.Context, f Failure) {
	if b.cfg.OnFailure == nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			b.log.LogAttrs(ctx, slog.LevelError, "Config.OnFailure panicked", slog.String("panic", fmt.Sprint(v)))
		}
	}()
	if f.Service == "" {
		f.Service = b.cfg.AppID
	}
	b.cfg.OnFailure(ctx, f)
}

// failureOf is a failure of a delivery.
func failureOf(w *work, kind FailureKind, reason string, err error) Failure {
	return Failure{
		Kind: kind, Service: w.source.service, Queue: w.source.queue.Name, Topic: w.message.RoutingKey,
		MessageID: w.message.ID, CorrelationID: w.message.CorrelationID, Reason: reason, Err: err,
	}
}
