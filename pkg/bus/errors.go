package bus

import (
	"errors"
)

// What calls to a Bus or a Driver fail with. Test with errors.Is.
var (
	// ErrUnroutable: the message was mandatory, and no queue is bound where it was sent. It is nowhere.
	ErrUnroutable = errors.New("no queue is bound for this message")
	// ErrUnavailable: the broker could not be reached in time; nothing was sent.
	ErrUnavailable = errors.New("the broker is not available")
	// ErrNotReading: the broker is there, and a static handler's queue is not read yet; it may not exist. It is an ErrUnavailable too.
	ErrNotReading = errors.New("not reading yet")
	// ErrNotConfirmed: the message was sent and the broker has not answered: it may or may not have arrived.
	ErrNotConfirmed = errors.New("the broker did not confirm the message")
	// ErrRefused: the broker is there and refused the message until the deadline: a queue that it goes to is full, or has lost its node.
	// It is ErrNotConfirmed or ErrUnavailable too.
	ErrRefused = errors.New("the broker refused the message")
	// ErrClosed: the bus, driver or subscription was closed.
	ErrClosed = errors.New("the bus is closed")
	// ErrDuplicateHandler: this topic already has a handler of that name, or one that reads that queue.
	ErrDuplicateHandler = errors.New("a handler of that name exists on this topic")
	// ErrUnknownTopic: the registry of a Consumers has no such topic.
	ErrUnknownTopic = errors.New("the topic is not in the registry")
	// ErrWrongEvent: the registry of a Consumers has another event on the topic than the handler takes.
	ErrWrongEvent = errors.New("the topic carries another event")
	// ErrInvalid: a topic, name, option or body that no broker would take. Trying again does not help.
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported: something the driver's broker cannot do, such as patterns of topics through a sidecar of Dapr.
	ErrUnsupported = errors.New("not supported")
	// ErrNoLetter: no such dead letter is in the store: it was replayed, discarded, or dropped by a limit.
	ErrNoLetter = errors.New("there is no such dead letter")
)

// permanentError marks a failure that no retry mends.
type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks a handler's error as one that no retry mends: the event goes to the dead letters at once. Permanent
// of nil is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err, or an error that it wraps, was marked by Permanent.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

// undecodableError marks a body that is not what the handler expects.
type undecodableError struct{ err error }

func (e *undecodableError) Error() string { return "cannot decode the event: " + e.err.Error() }
func (e *undecodableError) Unwrap() error { return e.err }
