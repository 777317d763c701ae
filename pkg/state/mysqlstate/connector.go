package mysqlstate

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A connector opens connections whose sessions are the same whatever the server's defaults.
type connector struct {
	driver.Connector
	cfg *mysql.Config
}

func newConnector(dsn string) (*connector, error) {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		// The parser's own message may repeat the text, and the password with it.
		return nil, fmt.Errorf("%w: the mysql DSN cannot be read; write it as user:password@tcp(host:3306)/database", state.ErrInvalid)
	}
	if cfg.DBName == "" {
		return nil, fmt.Errorf("%w: the mysql DSN names no database; write it as user:password@tcp(host:3306)/database", state.ErrInvalid)
	}
	cfg.ParseTime, cfg.Loc = true, time.UTC
	cfg.ClientFoundRows = true   // an update counts the rows it found, changed or not
	cfg.InterpolateParams = true // a statement that is not kept takes one round trip, not three
	cfg.MultiStatements = false
	cfg.Logger = &mysql.NopLogger{} // its errors are returned, too
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = time.Minute
	}
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = time.Minute
	}
	if err := cfg.Apply(mysql.Charset("utf8mb4", "utf8mb4_bin")); err != nil {
		return nil, fmt.Errorf("mysql: %w", err)
	}
	if cfg.Params == nil {
		cfg.Params = map[string]string{}
	}
	cfg.Params["time_zone"] = "'+00:00'"
	cfg.Params["sql_mode"] = "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO'"
	cfg.Params["innodb_lock_wait_timeout"] = cmp.Or(cfg.Params["innodb_lock_wait_timeout"], "5") // seconds; then the transaction is tried again
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: the mysql DSN has options that do not fit together: %w", state.ErrInvalid, err)
	}
	return &connector{c, cfg}, nil
}

// patient opens connections that wait for an answer for as long as the server takes.
func (c *connector) patient() (*connector, error) {
	cfg := c.cfg.Clone()
	cfg.ReadTimeout = 0
	patient, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return &connector{patient, cfg}, nil
}

// Connect opens a connection. Its errors are connectErrors: nothing was asked of the server yet.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, &connectError{err}
	}
	// What a statement reads is then the newest that is committed, and absent rows are not locked. The variable for
	// this has different names on MySQL and MariaDB, the statement has not.
	able := conn.(serverConn)
	for _, statement := range []string{"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", planning} {
		if _, err := able.ExecContext(ctx, statement, nil); err != nil {
			return nil, &connectError{errors.Join(err, conn.Close())}
		}
	}
	return &connection{serverConn: able}, nil
}

// planning spares the server what it does to choose among plans: queries name their index. It looks into an index to count
// rows where a statement asks for one range of equal ones, and not where for two, as those that have an index do (the other is of
// values with an array). MariaDB alone reads the comment: it does without estimates of what each condition leaves, and without the
// plans that those are for; to check a condition within the index works out the index's columns once more.
const planning = "SET SESSION eq_range_index_dive_limit = 2 /*M!, SESSION optimizer_use_condition_selectivity = 1," +
	" SESSION optimizer_switch = 'index_merge=off,index_condition_pushdown=off,rowid_filter=off' */"

// How long a server is asked again that has no connection left, and how often.
const (
	crowdedFor  = 3 * time.Second
	crowdedPoll = 50 * time.Millisecond
)

// dial waits a while for a server that has as many connections as it may.
func (c *connector) dial(ctx context.Context) (driver.Conn, error) {
	for begun := time.Now(); ; {
		conn, err := c.Connector.Connect(ctx)
		if n := number(err); n != tooManyConnections && n != tooManyOfUser || time.Since(begun) > crowdedFor {
			return conn, err
		}
		pause := time.NewTimer(rand.N(2 * crowdedPoll)) //nolint:gosec // spreads callers, guards nothing
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, err
		}
	}
}

// A connectError is the failure to open a connection.
type connectError struct{ err error }

func (e *connectError) Error() string { return "connecting: " + e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }
