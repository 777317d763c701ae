package mesh

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrInvalid: the caller's input breaks a rule. It is always an *InvalidError, which names the member.
	ErrInvalid = errors.New("invalid")
	// ErrNotFound: the table has no such key, or the configuration no such version.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the value changed since it was read.
	ErrConflict = errors.New("conflict")
	// ErrUnavailable: the table or the feed could not be reached.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnknownTarget: nothing of that name is mapped, registered or offered as a service.
	ErrUnknownTarget = errors.New("unknown target")
	// ErrNoEndpoint: the target's app-id has no instance now that takes requests.
	ErrNoEndpoint = errors.New("no usable endpoint")
	// ErrTooManyHops: a proxied request went through more nodes than allowed, which means it goes in a circle.
	ErrTooManyHops = errors.New("too many hops")
	// ErrCircuitOpen: all instances of the target fail, and no call is made for a moment. It is always a
	// *CircuitOpenError.
	ErrCircuitOpen = errors.New("circuit open")
	// ErrOverloaded: as many calls of the target are under way as its bulkhead lets in. It is always an *OverloadedError.
	ErrOverloaded = errors.New("overloaded")
	// ErrTooLarge: a response was longer than the client accepts.
	ErrTooLarge = errors.New("response too large")
)

// An InvalidError says which member of an input is wrong and how. errors.Is(err, ErrInvalid) holds.
type InvalidError struct {
	Member string // as in JSON: "port", "services[2]"
	Reason string // a sentence without the member: "must be between 1 and 65535, got 0"
}

// Error returns member and reason as one sentence.
func (e *InvalidError) Error() string { return e.Member + " " + e.Reason }

// Is reports whether target is ErrInvalid.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

func invalid(member, format string, args ...any) error {
	return &InvalidError{Member: member, Reason: fmt.Sprintf(format, args...)}
}
