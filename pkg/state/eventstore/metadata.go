package eventstore

import "context"

type metadataKey struct{}

// WithMetadata returns a context whose aggregates' events have this metadata: where the decision comes from.
func WithMetadata(ctx context.Context, m Metadata) context.Context {
	return context.WithValue(ctx, metadataKey{}, m)
}

// Caused is the metadata of what is done because of this event: it is the cause, and the rest is passed on.
func (e *Recorded) Caused() Metadata {
	m := e.Metadata
	m.CausationID = e.ID
	return m
}

func metadataOf(ctx context.Context) Metadata {
	m, _ := ctx.Value(metadataKey{}).(Metadata)
	return m
}
