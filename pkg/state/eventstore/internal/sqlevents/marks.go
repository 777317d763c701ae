package sqlevents

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// now puts the expression of the engine's clock into a statement, and the table's name.
func (l *log) now(text string) string {
	return sqlstate.SQL(l.sql(text), sqlstate.Expr{Text: l.db.Now}).Text
}

// verdict runs a transaction whose function may refuse what is asked, which undoes it; the engine would take that for a failure of its own. One that is
// the engine's own after all, which a handler has met, is for it to judge.
func (l *log) verdict(ctx context.Context, fn func(tx *sql.Tx) (refused, err error)) error {
	var refused error
	err := l.db.Transact(ctx, func(tx *sql.Tx) (err error) {
		if refused, err = fn(tx); err == nil {
			err = refused
		}
		if l.db.Own(refused) {
			refused = nil
		}
		return err
	})
	if refused != nil {
		return refused
	}
	return err
}

func (l *log) Transactional() bool { return true }

func (l *log) Enlist(ctx context.Context, name, consumer string, lives time.Duration) (consumers int, err error) {
	err = l.db.Transact(ctx, func(tx *sql.Tx) error {
		set := "INSERT INTO {t}_consumers (name, consumer, until) VALUES (?, ?, @ + ?)" + l.dialect.Prolong
		if _, err := tx.ExecContext(ctx, l.now(set), name, consumer, lives.Microseconds()); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, l.now("DELETE FROM {t}_consumers WHERE name = ? AND until < @"), name); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, l.sql("SELECT COUNT(*) FROM {t}_consumers WHERE name = ?"), name).Scan(&consumers)
	})
	return consumers, err
}

func (l *log) Retire(ctx context.Context, name, consumer string) error {
	return l.db.Transact(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, l.sql("DELETE FROM {t}_consumers WHERE name = ? AND consumer = ?"), name, consumer)
		return err
	})
}

func (l *log) Claim(ctx context.Context, c eventstore.Claim) (lease eventstore.Lease, claimed bool, err error) {
	err = l.verdict(ctx, func(tx *sql.Tx) (refused, err error) {
		lease = eventstore.Lease{Name: c.Name, Part: c.Part, Position: c.From, Lives: c.Lives}
		claimed = false
		parts, taken := c.Parts, false
		row := tx.QueryRowContext(ctx, l.now("SELECT parts, position, token, consumer <> '' AND consumer <> ? AND until > @ FROM {t}_positions WHERE name = ? AND part = ?"+l.dialect.Lock),
			c.Consumer, c.Name, c.Part)
		switch err := row.Scan(&parts, &lease.Position, &lease.Token, &taken); {
		case errors.Is(err, sql.ErrNoRows):
			_, err := tx.ExecContext(ctx, l.sql("INSERT INTO {t}_positions (name, part, parts, position, token, consumer, until) VALUES (?, ?, ?, ?, 0, '', 0)"),
				c.Name, c.Part, c.Parts, c.From)
			if err != nil {
				return nil, err
			}
		case err != nil:
			return nil, err
		}
		if parts != c.Parts {
			return fmt.Errorf("%w: the subscription has %d partitions, and not %d", state.ErrInvalid, parts, c.Parts), nil
		}
		if taken {
			return nil, nil
		}
		claimed = true
		lease.Token++
		_, err = tx.ExecContext(ctx, l.now("UPDATE {t}_positions SET token = ?, consumer = ?, until = @ + ? WHERE name = ? AND part = ?"),
			lease.Token, c.Consumer, c.Lives.Microseconds(), c.Name, c.Part)
		if err != nil {
			return nil, err
		}
		// What is there for this transaction was committed before it, and is on disk when it is.
		return nil, tx.QueryRowContext(ctx, l.sql("SELECT COALESCE(MAX(position), 0) FROM {t}")).Scan(&lease.Sure)
	})
	return lease, claimed && err == nil, err
}

// held prolongs a lease, if that is still the last one: it locks the part, so that nobody claims it until the transaction ends.
func (l *log) held(ctx context.Context, tx *sql.Tx, lease eventstore.Lease) (refused, err error) {
	return l.hold(ctx, tx, "UPDATE {t}_positions SET until = @ + ? WHERE name = ? AND part = ? AND token = ?",
		lease.Lives.Microseconds(), lease.Name, lease.Part, lease.Token)
}

// hold changes the mark of a lease by a statement that finds none where that is lost.
func (l *log) hold(ctx context.Context, tx *sql.Tx, text string, args ...any) (refused, err error) {
	result, err := tx.ExecContext(ctx, l.now(text), args...)
	if err != nil {
		return nil, err
	}
	if n, err := result.RowsAffected(); err != nil || n > 0 {
		return nil, err
	}
	return eventstore.ErrLeaseLost, nil
}

func (l *log) Renew(ctx context.Context, lease eventstore.Lease) error {
	return l.verdict(ctx, func(tx *sql.Tx) (refused, err error) { return l.held(ctx, tx, lease) })
}

// Advance changes the mark last, so that a claim does not wait for what is done within.
func (l *log) Advance(ctx context.Context, lease eventstore.Lease, to eventstore.Advance, within func(*sql.Tx) error) error {
	return l.verdict(ctx, func(tx *sql.Tx) (refused, err error) {
		if refused, err := l.there(ctx, tx, to); refused != nil || err != nil {
			return refused, err
		}
		if within != nil {
			if refused := within(tx); refused != nil {
				return refused, nil
			}
		}
		return l.hold(ctx, tx, "UPDATE {t}_positions SET position = ?, until = @ + ? WHERE name = ? AND part = ? AND token = ? AND position = ?",
			to.Position, lease.Lives.Microseconds(), lease.Name, lease.Part, lease.Token, to.Entered)
	})
}

// there looks whether the log has what a part has read. That is a part of the transaction: a database that is killed takes that with it.
func (l *log) there(ctx context.Context, tx *sql.Tx, to eventstore.Advance) (refused, err error) {
	if len(to.Read) == 0 {
		return nil, nil
	}
	by, text, args := "position", "", []any(nil)
	switch {
	case to.Scope.ID != "":
		by, text, args = "version", "category = ? AND stream = ? AND ", []any{to.Scope.Category, to.Scope.ID}
	case to.Scope.Category != "":
		text, args = "category = ? AND ", []any{to.Scope.Category}
	}
	text = "SELECT " + by + ", event_id FROM {t} WHERE " + text + by + " > ? AND " + by + " <= ? ORDER BY " + by
	rows, err := tx.QueryContext(ctx, l.sql(text), append(args, to.After, to.Read[len(to.Read)-1].At)...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	n := 0
	for rows.Next() {
		var at int64
		var id sql.RawBytes
		if err := rows.Scan(&at, &id); err != nil {
			return nil, err
		}
		if n == len(to.Read) || to.Read[n] != (eventstore.Place{At: at, ID: textOf(id)}) {
			return eventstore.ErrSetBack, nil
		}
		n++
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if n < len(to.Read) {
		return eventstore.ErrSetBack, nil
	}
	return nil, nil
}

func (l *log) Yield(ctx context.Context, lease eventstore.Lease) error {
	return l.db.Transact(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, l.sql("UPDATE {t}_positions SET token = token + 1, consumer = '', until = 0 WHERE name = ? AND part = ? AND token = ?"),
			lease.Name, lease.Part, lease.Token)
		return err
	})
}

func (l *log) Marks(ctx context.Context, name string) (all []eventstore.Mark, err error) {
	err = l.db.Read(ctx, func(db *sql.DB) (err error) {
		all = nil
		rows, err := db.QueryContext(ctx, l.sql("SELECT part, parts, position, consumer, until FROM {t}_positions WHERE name = ? ORDER BY part"), name)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, rows.Close()) }()
		for rows.Next() {
			var m eventstore.Mark
			var until int64
			if err := rows.Scan(&m.Part, &m.Parts, &m.Position, &m.Consumer, &until); err != nil {
				return err
			}
			if until > 0 {
				m.Until = time.UnixMicro(until).UTC()
			}
			all = append(all, m)
		}
		return rows.Err()
	})
	return all, err
}
