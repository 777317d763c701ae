package bus

import (
	"context"
	"sync/atomic"
)

// work is one delivery on its way to its handler, and the context that the handler gets: it carries the values of the
// subscription's context, ends with that, and ends when the delivery is settled.
type work struct {
	lateContext

	source   *source
	delivery Delivery
	message  *Message
	claimed  atomic.Bool
}

func newWork(s *source, d Delivery) *work {
	return &work{lateContext: lateContext{parent: s.working}, source: s, delivery: d, message: d.Message()}
}

// claim takes the right to settle the delivery. It is given once.
func (w *work) claim() bool { return !w.claimed.Swap(true) }

type workKey struct{}

// Value finds the work itself; publishes made in a handler ask for it.
func (w *work) Value(key any) any {
	if _, own := key.(workKey); own {
		return w
	}
	return w.lateContext.Value(key)
}

func workFrom(ctx context.Context) *work {
	w, _ := ctx.Value(workKey{}).(*work)
	return w
}

// key is the partition key, empty without one.
func (w *work) key() string { return w.message.Headers[HeaderPartitionKey] }

func (w *work) received() *Received {
	return &Received{
		Topic:         w.message.RoutingKey,
		MessageID:     w.message.ID,
		Type:          w.message.Type,
		ContentType:   w.message.ContentType,
		CorrelationID: w.message.CorrelationID,
		Timestamp:     w.message.Timestamp,
		Attempt:       w.delivery.Attempt(),
		Headers:       w.message.Headers,
		Body:          w.message.Body,
	}
}

// correlationID is what events published by this delivery's handler are correlated with: the conversation's id, which
// the first event of a conversation gives by its own.
func (w *work) correlationID() string {
	if w.message.CorrelationID != "" {
		return w.message.CorrelationID
	}
	return w.message.ID
}

// interrupted reports whether the subscription ended under the handler: whatever the handler says then, the delivery
// goes back to its queue.
func (w *work) interrupted() bool { return w.source.working.Err() != nil }
