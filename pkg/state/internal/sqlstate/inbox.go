package sqlstate

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// InboxTable is the name of the table of all inboxes, and the stem of the other's name.
const InboxTable = "inbox"

const (
	cleanBatch = 500         // marks that one transaction removes: few, so that it holds locks briefly
	cleanTurn  = time.Minute // how long a cleaner that says nothing is waited for
)

// An InboxEngine is what the inboxes of the SQL engines differ in.
type InboxEngine struct {
	// Transact is as in OutboxEngine.
	Transact func(ctx context.Context, fn func(tx *sql.Tx) error) error
	// Own reports whether an error of a handler is the engine's, as that of a lost connection is.
	Own func(err error) bool
	// Ignore begins an INSERT that does nothing where the row is there, and waits for a transaction that has inserted it: "INSERT IGNORE".
	Ignore string
	// Now is as in OutboxEngine.
	Now string
	// Old ends a DELETE from inbox. Its parameters are the inbox's name, a horizon in microseconds and how many rows.
	Old string
}

// An Inbox is one inbox of a SQL engine. Its tables are there when Transact runs.
type Inbox struct {
	engine InboxEngine
	cfg    state.InboxConfig
	owner  string // of this process's turns to clean
}

// NewInbox returns the inbox of a configuration that is complete.
func NewInbox(engine InboxEngine, cfg state.InboxConfig) *Inbox {
	return &Inbox{engine: engine, cfg: cfg, owner: rand.Text()}
}

func (b *Inbox) failure(what string, err error) error {
	return fmt.Errorf("inbox %q: cannot %s: %w", b.cfg.Name, what, err)
}

// errHandler undoes a transaction because its handler failed; the engine has nothing to say of it.
var errHandler = fmt.Errorf("%w: the handler failed", state.ErrInvalid)

// Handle marks first: the row keeps another transaction of the same message waiting.
func (b *Inbox) Handle(ctx context.Context, messageID string, fn func(tx *sql.Tx) error) (repeated bool, err error) {
	if err := state.CheckMessageID(messageID); err != nil {
		return false, b.failure("handle a message", err)
	}
	var failed error
	mark := SQL(b.engine.Ignore+" INTO inbox (name, message_id, handled_at) VALUES (@, @, @)", Bind(b.cfg.Name), Bind(messageID), Expr{Text: b.engine.Now})
	err = b.engine.Transact(ctx, func(tx *sql.Tx) error {
		failed = nil
		n, err := affected(tx.ExecContext(ctx, mark.Text, mark.Args...))
		if repeated = n == 0; err != nil || repeated {
			return err
		}
		if failed = fn(tx); failed == nil || b.engine.Own(failed) {
			return failed
		}
		return errHandler
	})
	switch {
	case err == nil:
		return repeated, nil
	case failed != nil && !b.engine.Own(failed):
		return false, failed
	default:
		return false, b.failure("handle message "+messageID, err)
	}
}

func affected(result sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Clean removes marks that are older than the horizon, a few in each transaction, as long as it is this process's turn.
func (b *Inbox) Clean(ctx context.Context) error {
	for {
		var removed int64
		err := b.engine.Transact(ctx, func(tx *sql.Tx) error {
			removed = 0
			mine, err := b.takeTurn(ctx, tx)
			if err != nil || !mine {
				return err
			}
			removed, err = affected(tx.ExecContext(ctx, "DELETE FROM inbox "+b.engine.Old, b.cfg.Name, b.cfg.Horizon.Microseconds(), cleanBatch))
			return err
		})
		if err != nil {
			return b.failure("remove old marks", err)
		}
		if removed < cleanBatch {
			return nil
		}
	}
}

// takeTurn reports whether no other process is to clean, and takes the turn.
func (b *Inbox) takeTurn(ctx context.Context, tx *sql.Tx) (bool, error) {
	now, until := Expr{Text: b.engine.Now}, cleanTurn.Microseconds()
	set := SQL("UPDATE inbox_turn SET owner = @, until = @ + @ WHERE name = @ AND (owner = @ OR until <= @)",
		Bind(b.owner), now, Bind(until), Bind(b.cfg.Name), Bind(b.owner), now)
	if n, err := affected(tx.ExecContext(ctx, set.Text, set.Args...)); err != nil || n > 0 {
		return n > 0, err
	}
	var there int
	err := tx.QueryRowContext(ctx, "SELECT 1 FROM inbox_turn WHERE name = ?", b.cfg.Name).Scan(&there)
	if !errors.Is(err, sql.ErrNoRows) {
		return false, err
	}
	first := SQL(b.engine.Ignore+" INTO inbox_turn (name, owner, until) VALUES (@, @, @ + @)", Bind(b.cfg.Name), Bind(b.owner), now, Bind(until))
	n, err := affected(tx.ExecContext(ctx, first.Text, first.Args...))
	return n > 0, err
}
