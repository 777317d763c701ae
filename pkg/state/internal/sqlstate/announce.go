package sqlstate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// An Announcement adds entries to an outbox in transactions that change something else. Its row in outbox_turn is taken
// as the last thing that such a transaction locks, and so changes that meet on a row are in the outbox in their order,
// and no two of them wait for each other in a circle.
type Announcement struct {
	// Outbox is where the entries go. Its tables are there when Add is called.
	Outbox state.OutboxConfig
	// Room and Now are as in OutboxEngine.
	Room func(bytes int64) error
	Now  string

	take, insertOne *sql.Stmt // prepared; nil: none are, and many rows are inserted with one statement
}

const takeTurns = "UPDATE outbox_turn SET turns = turns + 1, last_id = last_id + ?, entries = entries + ?, bytes = bytes + ?" +
	" WHERE name = ? AND entries <= ? AND bytes <= ?"

// Prepare is for engines in the same process: statements are prepared, and rows inserted one by one, which costs no round trips.
func (a *Announcement) Prepare(ctx context.Context, db *sql.DB) (err error) {
	if a.take, err = db.PrepareContext(ctx, takeTurns); err != nil {
		return err
	}
	if a.insertOne, err = db.PrepareContext(ctx, insertOutbox+a.row()); err != nil {
		return errors.Join(err, a.take.Close())
	}
	return nil
}

// Close closes what Prepare has prepared.
func (a *Announcement) Close() error { return errors.Join(a.take.Close(), a.insertOne.Close()) }

// row is the values of a row; its id is so many less than the last one taken.
func (a *Announcement) row() string {
	return "(?, (SELECT last_id FROM outbox_turn WHERE name = ?) - ?, ?, ?, ?, ?, ?, " + a.Now + ", 0)"
}

// Add adds the entries that the changes which were made have of themselves; it is the last statement of their transaction.
// An error undoes that: over a limit of the outbox it is ErrFull.
func (a *Announcement) Add(ctx context.Context, tx *sql.Tx, changes []state.Change, outcomes []state.Outcome) error {
	var entries []*state.OutboxEntry
	for i := range changes {
		e, err := EntryOf(&changes[i], outcomes[i])
		if err != nil {
			return err
		}
		if e != nil {
			entries = append(entries, e)
		}
	}
	return a.AddEntries(ctx, tx, entries)
}

// EntryOf is the entry that a change has of itself; nil: it was not made, or has none.
func EntryOf(c *state.Change, o state.Outcome) (*state.OutboxEntry, error) {
	if c.Announce == nil || !o.Done {
		return nil, nil //nolint:nilnil // there is none
	}
	e, err := c.Announce(o)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: key %q: the change cannot be announced: %w", state.ErrInvalid, c.Key, err)
	case len(e.Key) > state.MaxKeyBytes || len(e.Topic) > state.MaxKeyBytes:
		return nil, fmt.Errorf("%w: key %q: the change cannot be announced: a key or topic has more than %d bytes", state.ErrInvalid, c.Key, state.MaxKeyBytes)
	default:
		return &e, nil
	}
}

// AddEntries adds entries in their order.
func (a *Announcement) AddEntries(ctx context.Context, tx *sql.Tx, entries []*state.OutboxEntry) error {
	if len(entries) == 0 {
		return nil
	}
	size := int64(0)
	for _, e := range entries {
		size += e.Size()
	}
	if a.Room != nil {
		if err := a.Room(size); err != nil {
			return err
		}
	}
	if err := a.count(ctx, tx, int64(len(entries)), size); err != nil {
		return err
	}
	return a.insert(ctx, tx, entries)
}

// count takes the turn and as many ids as there are entries, if they are within the limits.
func (a *Announcement) count(ctx context.Context, tx *sql.Tx, n, size int64) error {
	took, err := a.takeIDs(ctx, tx, n, size)
	if err != nil || took {
		return err
	}
	var entries, bytes int64
	row := tx.QueryRowContext(ctx, "SELECT entries, bytes FROM outbox_turn WHERE name = ?", a.Outbox.Name)
	switch err := row.Scan(&entries, &bytes); {
	case err == nil:
		return full(a.Outbox, entries, bytes)
	case ignoreNoRows(err) != nil:
		return err
	}
	_, err = tx.ExecContext(ctx, "INSERT INTO outbox_turn (name, turns, last_id, entries, bytes, parked) VALUES (?, 0, 0, 0, 0, 0)", a.Outbox.Name)
	if err != nil {
		return err
	}
	if took, err = a.takeIDs(ctx, tx, n, size); err == nil && !took {
		err = full(a.Outbox, 0, 0)
	}
	return err
}

func (a *Announcement) takeIDs(ctx context.Context, tx *sql.Tx, n, size int64) (bool, error) {
	args := []any{n, n, size, a.Outbox.Name, a.Outbox.MaxEntries - n, a.Outbox.MaxBytes - size}
	var result sql.Result
	var err error
	if a.take != nil {
		result, err = tx.StmtContext(ctx, a.take).ExecContext(ctx, args...)
	} else {
		result, err = tx.ExecContext(ctx, takeTurns, args...)
	}
	if err != nil {
		return false, err
	}
	took, err := result.RowsAffected()
	return took > 0, err
}

// insert adds the rows. The last of all has the last id that was taken.
func (a *Announcement) insert(ctx context.Context, tx *sql.Tx, entries []*state.OutboxEntry) error {
	values := func(args []any, e *state.OutboxEntry, before int) []any {
		return append(args, a.Outbox.Name, a.Outbox.Name, before, e.Key, e.Topic, string(e.Properties), notNil(e.Body), e.Size())
	}
	if a.insertOne != nil {
		stmt := tx.StmtContext(ctx, a.insertOne)
		for i, e := range entries {
			if _, err := stmt.ExecContext(ctx, values(nil, e, len(entries)-1-i)...); err != nil {
				return err
			}
		}
		return nil
	}
	row := a.row()
	for len(entries) > 0 {
		var args []any
		rows, size := 0, int64(0)
		for _, e := range entries {
			if size += e.Size(); rows == insertRows || rows > 0 && size > insertBytes {
				break
			}
			rows++
			args = values(args, e, len(entries)-rows)
		}
		entries = entries[rows:]
		text := insertOutbox + row + strings.Repeat(", "+row, rows-1) //nolint:gosec // question marks
		if _, err := tx.ExecContext(ctx, text, args...); err != nil {
			return err
		}
	}
	return nil
}
