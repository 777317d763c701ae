package sqlitestate

import (
	"context"
	"errors"
	"fmt"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/bannou-mesh/bannou/pkg/state"
)

var errClosed = fmt.Errorf("%w: the sqlite driver is closed", state.ErrUnavailable)

func (e *engine) failure(ctx context.Context, err error) error {
	return fmt.Errorf("store %q: %w", e.store, failure(ctx, err))
}

// failure tells what an error of SQLite means to a caller. No change was made: the one error after which that is not
// certain is that of a commit.
func failure(ctx context.Context, err error) error {
	if errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrOutcomeUnknown) || errors.Is(err, errUndone) {
		return err
	}
	if ended := ctx.Err(); ended != nil {
		return fmt.Errorf("sqlite: %w", ended)
	}
	if errors.Is(err, state.ErrInvalid) || errors.Is(err, state.ErrCorrupt) || errors.Is(err, state.ErrFull) || errors.Is(err, state.ErrTooLarge) {
		return err
	}
	switch resultCode(err) {
	case sqlite3.SQLITE_CONSTRAINT:
		return fmt.Errorf("%w: sqlite cannot read the value as JSON, for instance because it is nested more than 1000 deep: %w", state.ErrInvalid, err)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %w: sqlite: %w", state.ErrUnavailable, state.ErrNoSpace, err)
	case sqlite3.SQLITE_TOOBIG:
		return fmt.Errorf("%w: %w", state.ErrTooLarge, err)
	}
	return fmt.Errorf("%w: sqlite: %w", state.ErrUnavailable, err)
}
