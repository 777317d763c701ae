package eventstore

import "context"

// Keys keep the key of each subject: without it, what was encrypted with it is gone. They are a part of an Engine.
type Keys interface {
	// KeepKey returns the key of k's subject: k, which it keeps, unless the subject has one.
	KeepKey(ctx context.Context, k SubjectKey) (SubjectKey, error)
	// SubjectKeys returns those of the keys with these ids that there are, in any order.
	SubjectKeys(ctx context.Context, ids []string) ([]SubjectKey, error)
	// DestroyKey removes the key of a subject, and counts that. False: it has none.
	DestroyKey(ctx context.Context, subject string) (bool, error)
	// Destroyed returns how many keys were removed in the life of the log.
	Destroyed(ctx context.Context) (int64, error)

	// KeysUnderOther returns keys that are wrapped with another master key, or with none, at most limit.
	KeysUnderOther(ctx context.Context, master string, limit int) ([]SubjectKey, error)
	// Rewrap replaces how a key is wrapped, if it is wrapped with that master key still.
	Rewrap(ctx context.Context, k SubjectKey, from string) error
}

// keySource finds keys: an engine does, and a step of one.
type keySource interface {
	SubjectKeys(ctx context.Context, ids []string) ([]SubjectKey, error)
}

// A SubjectKey is what the personal members of events about one subject are encrypted with.
type SubjectKey struct {
	ID      string // a UUID; never used again, for another key of the subject neither
	Subject string // whom it is about
	Master  string // the master key that wraps it; empty: none does
	Wrapped []byte
}
