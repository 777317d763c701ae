package mysqlstate

import (
	"context"
	"database/sql/driver"
	"sync/atomic"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// A serverConn is what the connections of the MySQL driver can do.
type serverConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// A connection is one that keeps statements prepared, and whose transactions end within their contexts. Those of the MySQL
// driver wait for the answer to a COMMIT until the read timeout, however soon the caller must know.
type connection struct {
	serverConn
	kept sqlstate.Kept
}

var _ sqlstate.Conn = (*connection)(nil)

// Kept implements sqlstate.Conn.
func (c *connection) Kept() *sqlstate.Kept { return &c.kept }

// PrepareContext returns a statement that notes when it is sent.
func (c *connection) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	stmt, err := c.serverConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &statement{stmt.(serverStmt)}, nil //nolint:forcetypeassert // those of the MySQL driver are
}

// A serverStmt is what the statements of the MySQL driver can do.
type serverStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
	driver.NamedValueChecker
}

// A statement notes that it is sent where the context asks for that. Whoever waits for a connection of the pool until the context ends
// has sent nothing, and database/sql gives both the same error.
type statement struct{ serverStmt }

// ExecContext implements driver.StmtExecContext.
func (s *statement) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if sent, ok := ctx.Value(sentKey{}).(*atomic.Bool); ok {
		sent.Store(true)
	}
	return s.serverStmt.ExecContext(ctx, args)
}

type sentKey struct{}

// noteSent is a context in which the flag is set when a prepared statement that changes something is about to be sent.
func noteSent(ctx context.Context, sent *atomic.Bool) context.Context {
	return context.WithValue(ctx, sentKey{}, sent)
}

func (c *connection) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	if _, err := c.serverConn.BeginTx(ctx, o); err != nil {
		return nil, err
	}
	return &transaction{ctx: ctx, conn: c.serverConn}, nil
}

type transaction struct {
	ctx  context.Context //nolint:containedctx // driver.Tx has no place for it
	conn serverConn
}

// rollbackTime is how long the server has to answer a ROLLBACK. A connection that does not answer is given up, and the
// transaction with it.
const rollbackTime = 300 * time.Millisecond

// Commit returns a commitError when it is unknown whether the server has made it.
func (t *transaction) Commit() error {
	if err := t.ctx.Err(); err != nil {
		_ = t.Rollback()
		return err
	}
	_, err := t.conn.ExecContext(t.ctx, "COMMIT", nil)
	if err == nil || number(err) != 0 {
		return err
	}
	_ = t.conn.Close() // it must not be used again: the transaction may still be open
	return &commitError{err}
}

func (t *transaction) Rollback() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), rollbackTime)
	defer cancel()
	if _, err := t.conn.ExecContext(ctx, "ROLLBACK", nil); err != nil {
		_ = t.conn.Close()
		return driver.ErrBadConn
	}
	return nil
}

// A commitError is the failure of a COMMIT that was sent.
type commitError struct{ err error }

func (e *commitError) Error() string { return "committing: " + e.err.Error() }
func (e *commitError) Unwrap() error { return e.err }
