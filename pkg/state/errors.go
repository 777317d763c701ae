package state

import (
	"errors"
	"fmt"
	"strings"
)

// What callers can tell apart with errors.Is. Every error of this package and of its drivers wraps one of them, or the
// context's error when the context ended first.
var (
	// ErrNotFound reports a key that is absent or expired.
	ErrNotFound = errors.New("not found")

	// ErrConflict reports that the condition of a save or delete did not hold: the key has another ETag than the one
	// given, or exists although it should not. Nothing was changed. From Transact it comes as a *ConflictError.
	ErrConflict = errors.New("conflict")

	// ErrUnknownStore reports the name of a store that the factory was not configured with.
	ErrUnknownStore = errors.New("unknown store")

	// ErrUnsupported reports something the store's engine cannot do, such as a query on Redis.
	ErrUnsupported = errors.New("not supported")

	// ErrUnavailable reports that the engine could not be reached or refused to work. Nothing was changed; the call may
	// be repeated.
	ErrUnavailable = errors.New("state backend unavailable")

	// ErrNoSpace reports that the engine has no room on its disk. Nothing was changed. It comes with ErrUnavailable.
	ErrNoSpace = errors.New("no space is left on the disk")

	// ErrOutcomeUnknown reports a write that was sent but whose answer never came: it may or may not have been made. Read
	// the key again before repeating it.
	ErrOutcomeUnknown = errors.New("outcome of the write is unknown")

	// ErrCorrupt reports a stored value that is not valid JSON or does not fit the type it is read as.
	ErrCorrupt = errors.New("corrupt value")

	// ErrInvalid reports an argument that can never be right: a bad key, a value that is not JSON, a bad filter, too many
	// keys.
	ErrInvalid = errors.New("invalid argument")

	// ErrLocked reports a lock that another holds.
	ErrLocked = errors.New("locked by another")

	// ErrLockLost reports a lock that was held and is no more: it was not renewed in time, or somebody deleted its key.
	ErrLockLost = errors.New("the lock is lost")

	// ErrTooLarge reports a value of more than MaxValueBytes bytes of JSON.
	ErrTooLarge = errors.New("value too large")
)

// A ConflictError is the ErrConflict of a Transact. It names the keys whose condition did not hold.
type ConflictError struct {
	Store string
	Keys  []string // in the order of the operations
}

// Error names the store and the keys.
func (e *ConflictError) Error() string {
	quoted := make([]string, len(e.Keys))
	for i, key := range e.Keys {
		quoted[i] = fmt.Sprintf("%q", key)
	}
	return fmt.Sprintf("state: store %q: conflict on %s; nothing was changed", e.Store, strings.Join(quoted, ", "))
}

// Is makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }
