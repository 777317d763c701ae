package sqlstate

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state"
)

func (o *outbox) Transact(ctx context.Context, fn func(tx *sql.Tx) ([]state.OutboxEntry, error)) error {
	var failed error
	err := o.engine.Transact(ctx, func(tx *sql.Tx) error {
		var entries []state.OutboxEntry
		if entries, failed = fn(tx); failed != nil {
			return failed
		}
		return o.enqueueIn(ctx, tx, entries)
	})
	if failed != nil && !o.engine.Own(failed) {
		err = failed // and not what the engine makes of it
	}
	return o.failure(adding, err)
}

func (o *outbox) EnqueueIn(ctx context.Context, tx *sql.Tx, entries ...state.OutboxEntry) error {
	if tx == nil {
		return o.failure(adding, fmt.Errorf("%w: there is no transaction", state.ErrInvalid))
	}
	if o.engine.Beside && !o.known.Load() {
		// Two transactions that make the outbox's row at once would be in each other's way, and the caller's cannot be made again here.
		if err := o.change(ctx, func(*sql.Tx, *turn) error { return nil }); err != nil {
			return o.failure(adding, err)
		}
		o.known.Store(true)
	}
	return o.failure(adding, o.enqueueIn(ctx, tx, entries))
}

// enqueueIn takes the row of the outbox last, as an Announcement does.
func (o *outbox) enqueueIn(ctx context.Context, tx *sql.Tx, entries []state.OutboxEntry) error {
	pointers := make([]*state.OutboxEntry, len(entries))
	for i := range entries {
		if err := checkEntry(&entries[i]); err != nil {
			return err
		}
		pointers[i] = &entries[i]
	}
	a := Announcement{Outbox: o.cfg, Room: o.engine.Room, Now: o.engine.Now}
	return a.AddEntries(ctx, tx, pointers)
}

func checkEntry(e *state.OutboxEntry) error {
	if len(e.Key) > state.MaxKeyBytes || len(e.Topic) > state.MaxKeyBytes {
		return fmt.Errorf("%w: a key or topic has more than %d bytes", state.ErrInvalid, state.MaxKeyBytes)
	}
	return nil
}
