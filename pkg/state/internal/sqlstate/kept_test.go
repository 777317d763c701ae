package sqlstate

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// A faulty is a driver whose connections are lost, or that cannot put values into a text, as it is told. It counts what is open.
type faulty struct {
	lost       int // so many connections more are lost when they are asked
	skips      bool
	connected  int
	statements int
}

func (f *faulty) Connect(context.Context) (driver.Conn, error) {
	f.connected++
	return &faultyConn{faulty: f}, nil
}

func (f *faulty) Driver() driver.Driver { return nil }

type faultyConn struct {
	driver.Conn
	faulty *faulty
	kept   Kept
}

func (c *faultyConn) Kept() *Kept { return &c.kept }

func (c *faultyConn) Close() error {
	c.kept.Close()
	return nil
}

func (c *faultyConn) PrepareContext(context.Context, string) (driver.Stmt, error) {
	c.faulty.statements++
	return &faultyStmt{faulty: c.faulty}, nil
}

func (c *faultyConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	if c.faulty.lost > 0 {
		c.faulty.lost--
		return nil, driver.ErrBadConn
	}
	if c.faulty.skips {
		return nil, driver.ErrSkip
	}
	return &faultyRows{}, nil
}

type faultyStmt struct {
	driver.Stmt
	faulty *faulty
}

func (s *faultyStmt) QueryContext(context.Context, []driver.NamedValue) (driver.Rows, error) {
	return &faultyRows{}, nil
}

func (s *faultyStmt) Close() error {
	s.faulty.statements--
	return nil
}

type faultyRows struct{ read bool }

func (*faultyRows) Columns() []string { return []string{"n"} }
func (*faultyRows) Close() error      { return nil }
func (r *faultyRows) Next(row []driver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read, row[0] = true, int64(1)
	return nil
}

// A connection that was lost meanwhile is replaced, a few times.
func TestReadOnLostConnections(t *testing.T) {
	f := &faulty{lost: 2}
	db := sql.OpenDB(f)
	defer func() { require.NoError(t, db.Close()) }()
	rows := 0
	count := func([]driver.Value) error { rows++; return nil }
	require.NoError(t, Read(t.Context(), db, "a", nil, count))
	require.Equal(t, 1, rows)
	require.Equal(t, 3, f.connected)
	f.lost = 100
	require.ErrorIs(t, ReadOnce(t.Context(), db, "b", nil, count), driver.ErrBadConn)
	require.Equal(t, 100-badTries, f.lost)
}

// No more statements are open than are kept, and none when the connections are closed. One that is asked once is not prepared, unless
// the driver cannot do without.
func TestKeptIsBounded(t *testing.T) {
	f := &faulty{}
	db := sql.OpenDB(f)
	db.SetMaxOpenConns(1)
	none := func([]driver.Value) error { return nil }
	for i := range 3 * maxKept {
		text := string(rune('a' + i))
		require.NoError(t, Read(t.Context(), db, text, []any{1}, none))
		require.NoError(t, Read(t.Context(), db, text, []any{1}, none))
		require.LessOrEqual(t, f.statements, maxKept)
		require.Equal(t, min(i+1, maxKept), f.statements)
		require.NoError(t, ReadOnce(t.Context(), db, "once"+text, nil, none))
		require.Equal(t, min(i+1, maxKept), f.statements)
	}
	f.skips = true
	require.NoError(t, ReadOnce(t.Context(), db, "values in a text", []any{1}, none))
	require.Equal(t, maxKept, f.statements)
	require.NoError(t, db.Close())
	require.Zero(t, f.statements)
	require.Error(t, Read(t.Context(), db, "a", nil, none))
}
