package state

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// An Inbox remembers which messages were handled, so that each has its effect once, however often it comes. The mark of a message and what its
// handler changes in the database are one transaction. An Inbox is safe for concurrent use by goroutines and processes. Its errors are those of a Driver.
type Inbox interface {
	// Handle calls fn with a transaction of the inbox's database, and marks the message in it, unless it is marked: then fn is not called, and
	// the message is repeated. What fn changes in the transaction is there when Handle returns nil, with the mark, and otherwise neither is
	// (ErrOutcomeUnknown: both or neither). Of two calls for one message at once, the second waits for the first, and calls fn if that one failed.
	// An id has 1 to 255 bytes.
	//
	// fn's own error is returned as it is, and undoes all. fn may be called again from its beginning, where the engine calls that normal, and
	// must not commit or roll back. On SQLite the file's one writer is taken meanwhile: fn must change it by its transaction only. In memory
	// there is no transaction: tx is nil, and the message is marked when fn has returned nil, before another call for it goes on. What a
	// failed fn has changed is its own to undo there, and marks end with the process.
	Handle(ctx context.Context, messageID string, fn func(tx *sql.Tx) error) (repeated bool, err error)
}

// DefaultInboxHorizon is InboxConfig.Horizon's default.
const DefaultInboxHorizon = 7 * 24 * time.Hour

// An InboxConfig describes one inbox.
type InboxConfig struct {
	// Name sets it apart from others of the database: 1 to 255 bytes. One message may be handled once for each inbox, so there is one for each handler
	// that is to see every message.
	Name string
	// Horizon is how long a mark is kept at least, by the engine's clock. A message that comes again after that is handled again. It is
	// longer than a message can be on its way, or wait as a dead letter. Default: DefaultInboxHorizon, 7 days.
	Horizon time.Duration
}

// An InboxDriver is a Driver that can keep inboxes. It removes old marks in the background, a few at a time and one process at a time.
type InboxDriver interface {
	Driver
	// OpenInbox makes the tables when they are absent. Like Open, it does not fail because a server is away.
	OpenInbox(ctx context.Context, cfg InboxConfig) (Inbox, error)
}

// Inbox opens an inbox on the named backend. ErrUnsupported: that backend keeps none (sqlite, mysql and memory do). On others, a transaction of a
// store has the same effect, with a key of the message that must be absent as one of its changes.
func (f *Factory) Inbox(ctx context.Context, backend string, cfg InboxConfig) (Inbox, error) {
	driver, ok := f.drivers[backend].(InboxDriver)
	if !ok {
		return nil, fmt.Errorf("state: %w: an inbox on backend %q; choose sqlite, mysql or memory", ErrUnsupported, backend)
	}
	box, err := driver.OpenInbox(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("state: open inbox %q: %w", cfg.Name, err)
	}
	return box, nil
}

// Complete checks the configuration and fills in its defaults, for drivers.
func (c InboxConfig) Complete() (InboxConfig, error) {
	if c.Horizon == 0 {
		c.Horizon = DefaultInboxHorizon
	}
	switch {
	case c.Name == "" || len(c.Name) > MaxKeyBytes:
		return c, fmt.Errorf("%w: the name of an inbox has 1 to %d bytes", ErrInvalid, MaxKeyBytes)
	case c.Horizon < 0:
		return c, fmt.Errorf("%w: the horizon of inbox %q must be positive", ErrInvalid, c.Name)
	default:
		return c, nil
	}
}

// CheckMessageID reports an id that Inbox.Handle does not take, for drivers.
func CheckMessageID(id string) error {
	if id == "" || len(id) > MaxKeyBytes {
		return fmt.Errorf("%w: the id of a message has 1 to %d bytes", ErrInvalid, MaxKeyBytes)
	}
	return nil
}
