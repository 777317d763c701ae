package mesh

import (
	"context"
	"time"
)

// A Table is what the mesh needs of the state layer: values by key, with expiry and compare-and-set. Values are JSON
// objects; a table may reorder their members, not change them. meshtest.RunTable checks an implementation.
//
// A Table is safe for concurrent use. Every method returns by the context's deadline. An error that wraps
// ErrUnavailable means that the table could not be reached.
type Table interface {
	// Get returns a value and its etag, or ErrNotFound for a key that is absent or expired.
	Get(ctx context.Context, key string) (value []byte, etag string, err error)

	// GetMany returns values in the order of keys, nil for one that is absent or expired. No keys: no values.
	GetMany(ctx context.Context, keys []string) ([][]byte, error)

	// Put stores a value whatever was there. It lives for ttl; 0 is for ever.
	Put(ctx context.Context, key string, value []byte, ttl time.Duration) error

	// TryPut stores a value if the key's etag is still the one given, "" meaning that the key is absent, and
	// ErrConflict otherwise. It lives for ttl from now; 0 is for ever. An etag is never used twice for a key, also not
	// after a delete.
	TryPut(ctx context.Context, key string, value []byte, etag string, ttl time.Duration) error

	// Delete removes a key. An absent one is no error.
	Delete(ctx context.Context, key string) error

	// TryDelete removes a key if its etag is still the one given, and returns ErrConflict otherwise, ErrNotFound for a key
	// that is absent.
	TryDelete(ctx context.Context, key, etag string) error
}

// A Feed is what the mesh needs of the bus: to tell every node that something changed. meshtest.RunFeed checks an
// implementation. A Feed is safe for concurrent use.
type Feed interface {
	// Announce tells every watcher of every node, this one's included. It returns when the bus has taken the change
	// over, by the context's deadline.
	Announce(ctx context.Context, c Change) error

	// Watch calls fn for every change announced from its return on, until stop is called; after stop has returned, fn
	// is not called again. Delivery is at least once and in no promised order, also from several goroutines at once:
	// the mesh orders changes by LastSeen and Version, so these must arrive unchanged. The context bounds the call,
	// not the watching. fn is quick and does not block.
	Watch(ctx context.Context, fn func(Change)) (stop func(), err error)
}

// ChangeKind is what happened.
type ChangeKind string

// The kinds of change.
const (
	// ChangeRegistered: an instance came, moved, or is healthy again. Endpoint is whole.
	ChangeRegistered ChangeKind = "registered"
	// ChangeDeregistered: an instance left or is gone. Of Endpoint, AppID, InstanceID and LastSeen count.
	ChangeDeregistered ChangeKind = "deregistered"
	// ChangeDegraded: an instance is there and not healthy. Endpoint is whole; its Status says which: degraded,
	// unavailable or shuttingDown. If only its ids arrive, receivers take it as degraded.
	ChangeDegraded ChangeKind = "degraded"
	// ChangeMappings: Mappings is the new value.
	ChangeMappings ChangeKind = "mappings"
)

// A Change is what a Feed carries: an endpoint's or the mappings'.
type Change struct {
	Kind     ChangeKind
	Endpoint Endpoint
	Mappings Mappings
	// Unreachable: the instance is degraded because it did not answer probes, though it sends heartbeats.
	Unreachable bool
}
