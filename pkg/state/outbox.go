package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// ErrFull reports an outbox that would grow over its limit. Nothing was added.
var ErrFull = errors.New("the outbox is full")

// An Outbox is a table of events that wait to be sent elsewhere: added with one commit, claimed for a time by the process
// that sends them, and deleted when they have arrived. It is never read by a position, so it does not matter which ids
// there are or which writer commits first.
//
// It promises order within a key: an entry that was added after the addition of another one of its key had returned is
// claimed with it or after it was deleted, also where several processes share the table. Entries without a key have no
// order. An Outbox is safe for concurrent use by goroutines and processes. Its errors are those of a Driver.
type Outbox interface {
	// Enqueue adds entries, all or none, and returns when they are on disk. Of an entry it takes Key, Topic, Properties
	// and Body. ErrFull: they are over a limit. ErrOutcomeUnknown: they may have been added.
	Enqueue(ctx context.Context, entries ...OutboxEntry) error

	// Transact runs fn in a transaction of the outbox's database, and adds the entries that it returns: what fn changes in tables of its own is
	// there with the entries, or neither is. fn may be called again from its beginning, where the engine calls that normal, and must not commit
	// or roll back. Its own error undoes all, and is wrapped. On SQLite the file's one writer is taken meanwhile. Errors are as of Enqueue.
	Transact(ctx context.Context, fn func(tx *sql.Tx) ([]OutboxEntry, error)) error

	// EnqueueIn adds entries in a transaction of the outbox's database that the caller has begun and commits: Inbox.Handle's, for
	// instance, or that of an event store's HandleIn. It is the last thing that such a transaction does, for others wait from then on until it ends.
	// An error must end the transaction. Nobody hears of the entries: tell the one who sends them, when it is committed.
	EnqueueIn(ctx context.Context, tx *sql.Tx, entries ...OutboxEntry) error

	// Claim gives the oldest free entries to an owner, in order, until the lease ends. An entry is free unless it, or
	// another one of its key, is claimed by somebody else. What an owner has claimed itself it may claim again.
	Claim(ctx context.Context, c OutboxClaim) ([]OutboxEntry, error)

	// Release makes entries free that the owner has claimed.
	Release(ctx context.Context, owner string, ids ...int64) error

	// Delete removes entries that the owner has claimed. Those that are no longer its own stay.
	Delete(ctx context.Context, owner string, ids ...int64) error

	// Park sets an entry that the owner has claimed aside, with the reason: nobody will take it. It stays in the table for
	// people to look at, stands in nobody's way, and is not counted in the limits.
	Park(ctx context.Context, owner string, id int64, reason string) error

	// Parked lists entries that were set aside, those with an id over after, in the order of their ids.
	Parked(ctx context.Context, after int64, most int) ([]ParkedEntry, error)

	// Unpark has entries that were set aside wait again, in their old places, and returns how many they are; no ids ask for
	// all of them. They count in the limits again, which may be passed by it. Other entries stay as they are.
	Unpark(ctx context.Context, ids ...int64) (int64, error)

	// Discard removes entries that were set aside for good, and returns how many they are; no ids ask for all of them.
	// Other entries stay as they are.
	Discard(ctx context.Context, ids ...int64) (int64, error)

	// Keys returns which of the given keys have entries that wait; nil asks for all keys there are.
	Keys(ctx context.Context, among []string) ([]string, error)

	// Stats counts. It takes the same time however many entries wait.
	Stats(ctx context.Context) (OutboxStats, error)
}

// An OutboxConfig describes one outbox. Several may share a table.
type OutboxConfig struct {
	// Name sets it apart from others in the table: 1 to 255 bytes.
	Name string
	// MaxEntries is how many entries may wait. Required.
	MaxEntries int64
	// MaxBytes is how many bytes of keys, topics, properties and bodies may wait. Required.
	MaxBytes int64
}

// An OutboxEntry is one event that waits.
type OutboxEntry struct {
	Key        string // entries of one key keep their order; empty: no order
	Topic      string
	Properties []byte // JSON; how it is to be sent
	Body       []byte

	ID        int64     // set by the outbox: means nothing but the order within a key
	CreatedAt time.Time // by the engine's clock
	Attempts  int       // how often it has been claimed
}

// A ParkedEntry is one that was set aside.
type ParkedEntry struct {
	OutboxEntry
	ParkedAt time.Time // by the engine's clock
	Reason   string    // as Park was told
}

// Size is what the entry counts towards MaxBytes.
func (e *OutboxEntry) Size() int64 {
	return int64(len(e.Key) + len(e.Topic) + len(e.Properties) + len(e.Body))
}

// An OutboxClaim asks for entries.
type OutboxClaim struct {
	Owner      string        // who asks: unique among processes, at most 64 bytes
	Lease      time.Duration // for how long
	MaxEntries int           // at most so many
	MaxBytes   int64         // and, after the first, at most so many bytes
}

// OutboxStats are the figures of an outbox.
type OutboxStats struct {
	Depth  int64     // entries that wait, claimed ones included
	Bytes  int64     // of them
	Parked int64     // entries set aside
	Oldest time.Time // when the oldest that waits was added; zero when none does
}

// An OutboxDriver is a Driver that can keep outboxes.
type OutboxDriver interface {
	Driver
	// OpenOutbox makes the tables when they are absent. Like Open, it does not fail because a server is away.
	OpenOutbox(ctx context.Context, cfg OutboxConfig) (Outbox, error)
}

// Outbox opens an outbox on the named backend. Open each name once. ErrUnsupported: that backend keeps none (only sqlite
// and mysql do).
func (f *Factory) Outbox(ctx context.Context, backend string, cfg OutboxConfig) (Outbox, error) {
	driver, ok := f.drivers[backend].(OutboxDriver)
	if !ok {
		return nil, fmt.Errorf("state: %w: an outbox on backend %q; choose sqlite or mysql", ErrUnsupported, backend)
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	box, err := driver.OpenOutbox(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("state: open outbox %q: %w", cfg.Name, err)
	}
	return box, nil
}

func (c OutboxConfig) check() error {
	switch {
	case c.Name == "" || len(c.Name) > MaxKeyBytes:
		return fmt.Errorf("%w: the name of an outbox has 1 to %d bytes", ErrInvalid, MaxKeyBytes)
	case c.MaxEntries <= 0 || c.MaxBytes <= 0:
		return fmt.Errorf("%w: the limits of outbox %q must be positive", ErrInvalid, c.Name)
	default:
		return nil
	}
}
