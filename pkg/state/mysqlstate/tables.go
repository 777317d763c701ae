package mysqlstate

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"

	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// Database lends the server to a package that keeps tables of its own on it, beside pkg/state, such as mysqlevents. The tables are made by
// the first operation that reaches the server. It lasts as long as the driver.
func (d *Driver) Database(table string, migrations func(table string, mariaDB bool) [][]string) (*sqlstate.Database, error) {
	if err := sqlstate.CheckTable(table); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errClosed
	}
	t := &tables{db: d.db, turn: d.turn, name: table, migrations: migrations}
	return &sqlstate.Database{
		Writer: d.db, Reader: d.db,
		Prepare: func(ctx context.Context) error {
			if err := t.prepare(ctx); err != nil {
				return failure(ctx, err, reading)
			}
			return nil
		},
		Transact: t.transact,
		Write:    t.write,
		Read:     t.read,
		Own:      isOwn,
		Now:      nowMicros,
		Workers:  d.workers,
	}, nil
}

// tables are those of outboxes and the like, beside the ones of stores. They are made when the server is first reached.
type tables struct {
	db         *sql.DB
	turn       chan struct{} // held by the one that makes the tables
	name       string
	migrations func(table string, mariaDB bool) [][]string
	made       atomic.Bool
}

func (t *tables) prepare(ctx context.Context) error {
	if t.made.Load() {
		return nil
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if t.made.Load() {
		return nil
	}
	if err := migrate(ctx, t.db, t.name, t.migrations); err != nil {
		return err
	}
	t.made.Store(true)
	return nil
}

func (t *tables) read(ctx context.Context, fn func(*sql.DB) error) error {
	err := t.prepare(ctx)
	if err == nil {
		err = fn(t.db)
	}
	if err != nil {
		return failure(ctx, err, reading)
	}
	return nil
}

// transact runs a transaction, and again when others were in the way.
func (t *tables) transact(ctx context.Context, fn func(*sql.Tx) error) error {
	err := t.prepare(ctx)
	if err == nil {
		err = again(ctx, func() error { return t.try(ctx, fn) })
	}
	if err != nil {
		return failure(ctx, err, reading) // a commit speaks for itself
	}
	return nil
}

func (t *tables) try(ctx context.Context, fn func(*sql.Tx) error) error {
	tx, err := t.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if err := fn(tx); err != nil {
		if number(err) == duplicateKey {
			return errRaced // another process made the row
		}
		return err
	}
	return commit(ctx, tx)
}

// write runs one statement, and again when others were in the way.
func (t *tables) write(ctx context.Context, fn func(*sql.DB) error) error {
	if err := t.prepare(ctx); err != nil {
		return failure(ctx, err, reading)
	}
	err := again(ctx, func() error { return fn(t.db) })
	switch {
	case err == nil:
		return nil
	case number(err) == duplicateKey:
		return fmt.Errorf("%w: %w", sqlstate.ErrDuplicate, err)
	case number(err) == columnNull:
		return fmt.Errorf("%w: %w", sqlstate.ErrNull, err)
	default:
		return failure(ctx, err, writing)
	}
}
