package state

import (
	"context"
	"time"
)

// A Driver is one engine (Redis, MySQL, SQLite, memory) that opens stores.
//
// A driver is safe for concurrent use. It reports what callers must tell apart with the sentinels of this package
// (ErrUnavailable, ErrOutcomeUnknown, ErrCorrupt, ErrTooLarge), wrapped with the name of the store and the key. It
// retries what the engine calls normal (deadlocks, lost script caches), boundedly and within the context's deadline;
// it never retries a write whose outcome it does not know.
type Driver interface {
	// Backend is the engine's name as configuration and listings show it: "redis", "mysql", "sqlite", "memory".
	Backend() string

	// Open prepares the named store: creates what is missing (tables, indexes, scripts) and returns its engine side.
	// It is called once per store. A server that is away is not an error of Open where the engine can wait: the first
	// operation then reports ErrUnavailable.
	Open(ctx context.Context, cfg StoreConfig) (Engine, error)

	// Ready reports whether the engine answers, within the context's deadline.
	Ready(ctx context.Context) error

	// Close releases connections and ends the driver's goroutines. Operations after it fail.
	Close() error
}

// A Settler is a driver that uses other drivers of its factory, in the background.
type Settler interface {
	// Settle ends that. A factory that closes calls it before it closes any driver.
	Settle()
}

// An Engine is one store of a Driver. Keys and sizes have been checked by Store; values are valid JSON, and come back
// with every number as it was written, digit for digit.
type Engine interface {
	// Get reads the given keys in one round trip and returns one Record per key, in order. An absent or expired key
	// is a Record with Found false, never an error. Value and version are read together.
	Get(ctx context.Context, keys []string) ([]Record, error)

	// Exists reports, in order and in one round trip, which keys are present and not expired.
	Exists(ctx context.Context, keys []string) ([]bool, error)

	// Apply carries out the changes independently of each other, each one atomically, in as few round trips as the
	// engine allows, and returns one Outcome per change, in order. A key appears at most once. The error is for a
	// failure of the whole call.
	Apply(ctx context.Context, changes []Change) ([]Outcome, error)

	// Transact carries out all changes or none. When a condition fails nothing is changed, the error is nil, and
	// every Outcome whose condition failed says so. A key appears at most once. Engines that cannot do it return
	// an error that wraps ErrUnsupported and says why (Redis: keys that do not share a hash tag).
	Transact(ctx context.Context, changes []Change) ([]Outcome, error)

	// Len counts the keys that are present. It may take time in proportion to the store; it never blocks writers.
	Len(ctx context.Context) (int64, error)
}

// A Querier is an Engine that evaluates queries in the engine itself.
type Querier interface {
	// Query returns the records that match, in the query's order, ties in key order, those after Query.After. The values
	// are whole: Query.Fields is not for engines.
	Query(ctx context.Context, q Query) ([]Record, error)
	// Count returns how many records match.
	Count(ctx context.Context, f Filter) (int64, error)
}

// An Indexer is a Querier that keeps the indexes of StoreConfig.Indexes.
type Indexer interface {
	// Indexed returns the declared paths whose index is there and used. It is made in the background after Open.
	Indexed() []string
}

// A Record is what an Engine reads for one key.
type Record struct {
	Key       string
	Found     bool
	Value     []byte // JSON
	ETag      string
	Version   int64 // 1 for a new key, plus 1 a change; starts again after a delete, the ETag does not
	CreatedAt time.Time
	UpdatedAt time.Time
	ExpiresAt time.Time // zero: never
}

// A Condition is what must hold for a Change to be made.
type Condition uint8

// The conditions of a Change.
const (
	Always   Condition = iota // no condition
	IfAbsent                  // the key must not exist
	IfETag                    // the key must exist with Change.ETag
)

// A Change is one save or delete.
type Change struct {
	Key    string
	Delete bool
	Value  []byte // JSON; for saves
	Shared bool   // the caller may write to Value once the call has returned, so that an engine that keeps it has to copy it
	Expiry Expiry // for saves; Keep, Never or a duration: Store has replaced the zero value
	When   Condition
	ETag   string // for IfETag

	// Announce makes the entry that an engine of an Announcer adds to its outbox in the transaction that makes the change,
	// from the outcome of it. It may be called several times for one change, of which one counts. Nil: none is added.
	Announce func(o Outcome) (OutboxEntry, error)
}

// An Outcome is what became of one Change.
type Outcome struct {
	// Done is true when the change was made. For a delete without condition of an absent key it is false.
	Done bool
	// Conflict is true when the condition did not hold. Then nothing was changed.
	Conflict bool
	// Absent is true when Conflict is and the key does not exist.
	Absent  bool
	ETag    string // of the value saved
	Version int64  // of the value saved
	Err     error  // of this change alone; only from Apply
}
