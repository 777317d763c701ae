package mysqlstate

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"

	"github.com/bannou-mesh/bannou/pkg/state"
)

var errClosed = fmt.Errorf("%w: the mysql driver is closed", state.ErrUnavailable)

// What a statement was about when it failed decides what a lost connection means.
type doing bool

const (
	reading doing = false // or writing within a transaction that was not committed: nothing was changed
	writing doing = true
)

// The server's error numbers that are told apart. They are the same on MySQL and MariaDB, except for a failed CHECK.
const (
	lockWaitTimeout  = 1205
	deadlock         = 1213
	duplicateKey     = 1062
	columnNull       = 1048
	packetTooLarge   = 1153
	checkFailedMySQL = 3819
	checkFailedMaria = 4025
	queryInterrupted = 1317
	connectionKilled = 1927
	serverShutsDown  = 1053
	invalidJSONText  = 3140
	invalidJSONKept  = 3141 // of a function: a value that is kept
	diskFull         = 1021
	tableFull        = 1114
	badDate          = 1292

	tooManyConnections = 1040
	tooManyOfUser      = 1203
)

// number is the server's number of an error, 0 when it is none of the server's.
func number(err error) uint16 {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}

// failure tells what an error means to a caller.
func failure(ctx context.Context, err error, d doing) error {
	var connect *connectError
	switch {
	case errors.Is(err, state.ErrInvalid), errors.Is(err, state.ErrCorrupt), errors.Is(err, state.ErrFull), errors.Is(err, state.ErrUnavailable), errors.Is(err, state.ErrOutcomeUnknown):
		return err
	case number(err) == tooManyConnections, number(err) == tooManyOfUser:
		return fmt.Errorf("%w: mysql has no connection left; raise its max_connections, or have its programs keep fewer: %w",
			state.ErrUnavailable, errors.Join(ctx.Err(), err))
	case errors.As(err, &connect), errors.Is(err, driver.ErrBadConn): // nothing was sent
		return unavailable(ctx, err)
	case errors.Is(err, mysql.ErrPktTooLarge):
		return fmt.Errorf("%w: mysql: %w", state.ErrTooLarge, err)
	}
	switch number(err) {
	case 0:
	case packetTooLarge:
		return fmt.Errorf("%w: raise the server's max_allowed_packet to 16 MiB or more: %w", state.ErrTooLarge, err)
	case checkFailedMySQL, checkFailedMaria, invalidJSONText:
		return fmt.Errorf("%w: the server cannot read the value as JSON, for instance because it is nested too deep (MariaDB: 32, MySQL: 100) or has a number beyond the range of a float (MySQL): %w", state.ErrInvalid, err)
	case diskFull, tableFull:
		return fmt.Errorf("%w: %w: mysql: %w", state.ErrUnavailable, state.ErrNoSpace, err)
	case connectionKilled, serverShutsDown, queryInterrupted:
		if d == writing {
			return fmt.Errorf("%w: mysql: %w", state.ErrOutcomeUnknown, err)
		}
		return unavailable(ctx, err)
	default:
		return unavailable(ctx, err)
	}
	if d == reading {
		return unavailable(ctx, err)
	}
	return outcomeUnknown(ctx, err)
}

// outcomeUnknown is for what was sent and not answered.
func outcomeUnknown(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil {
		err = ended
	}
	return fmt.Errorf("%w: mysql: %w", state.ErrOutcomeUnknown, err)
}

// unavailable is for what was certainly not done. A caller who gave up is told so alone; one whose deadline passed, that
// the server did not answer in time.
func unavailable(ctx context.Context, err error) error {
	switch ended := ctx.Err(); {
	case ended == nil:
		return fmt.Errorf("%w: mysql: %w", state.ErrUnavailable, err)
	case errors.Is(ended, context.Canceled):
		return fmt.Errorf("mysql: %w", ended)
	default:
		return fmt.Errorf("%w: mysql did not answer in time: %w", state.ErrUnavailable, ended)
	}
}
