package bus

import "context"

// work is one delivery on its way through the middleware. It travels in its message's context.
type work struct {
	source   *source
	delivery Delivery
	message  *Message
}

type workKey struct{}

func workFrom(ctx context.Context) *work {
	w, _ := ctx.Value(workKey{}).(*work)
	return w
}

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
