package sqlstate

import (
	"context"
	"database/sql"
	"errors"
)

// ErrDuplicate reports a row that is there already. Nothing was changed.
var ErrDuplicate = errors.New("the row is there already")

// ErrNull reports a column without a value that has to have one. Nothing was changed.
var ErrNull = errors.New("a column has no value")

// A Database is what a SQL driver lends to who keeps tables of their own beside its stores: its connections, and what it knows of its
// engine's failures. The errors of its functions are those of a state.Driver.
type Database struct {
	// Writer and Reader are the connections. SQLite has one writer, which is taken while Transact runs.
	Writer, Reader *sql.DB
	// Prepare makes the tables that the database was asked for with, unless they are there. Transact, Write and Read begin with it.
	Prepare func(ctx context.Context) error
	// Transact runs fn in one transaction, again from its beginning where the engine calls that normal: after a deadlock, and where a
	// row is there already that fn inserts. What fn changed is on disk when it returns nil.
	Transact func(ctx context.Context, fn func(tx *sql.Tx) error) error
	// Write runs fn, which makes one statement outside a transaction. The error of one that inserts a row that is there already wraps
	// ErrDuplicate; of one that leaves a column without a value, ErrNull.
	Write func(ctx context.Context, fn func(db *sql.DB) error) error
	// Read runs fn outside a transaction.
	Read func(ctx context.Context, fn func(db *sql.DB) error) error
	// Own reports whether an error that a caller met in its transaction is the engine's, as that of a lost connection is.
	Own func(err error) bool
	// Now is the SQL expression for the microseconds since 1970, by the clock that all processes share.
	Now string
	// Workers own the goroutines of gatherings.
	Workers *Workers
}
