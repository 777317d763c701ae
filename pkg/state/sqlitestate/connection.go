package sqlitestate

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"net/url"

	"modernc.org/sqlite"

	"github.com/bannou-mesh/bannou/pkg/state/internal/sqlstate"
)

// A fileConn is what the connections of the SQLite driver can do.
type fileConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// A reader is a connection that keeps its statements prepared.
type reader struct {
	fileConn
	kept sqlstate.Kept
}

var _ sqlstate.Conn = (*reader)(nil)

// Kept implements sqlstate.Conn.
func (r *reader) Kept() *sqlstate.Kept { return &r.kept }

// Close closes the statements first: SQLite keeps a connection that has any.
func (r *reader) Close() error {
	r.kept.Close()
	return r.fileConn.Close()
}

type readerConnector struct{ driver.Connector }

func (c readerConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &reader{fileConn: conn.(fileConn)}, nil //nolint:forcetypeassert // the driver documents it
}

// openReaders does not touch the file yet.
func openReaders(path string, options url.Values) (*sql.DB, error) {
	c, err := sqlite.NewConnector(address(path, options))
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(readerConnector{c}), nil
}
