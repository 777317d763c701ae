package eventstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Expected is the version that a stream must have for an append to be made: so many events. The zero value asks for a stream that does
// not exist.
type Expected int64

// What may be expected besides an exact version.
const (
	NoStream Expected = 0  // the stream must not exist
	Any      Expected = -1 // whatever it has
)

// An Append is the part of one stream in an append.
type Append struct {
	Stream   StreamID
	Expected Expected
	Events   []Event
}

// Appended is what came of the part of one stream.
type Appended struct {
	Stream   StreamID
	Version  int64 // of the stream then: of the last of the events
	Position int64 // of the last of the events
	Repeated bool  // the events were there already, with these ids: they were appended by an earlier call
}

// Append adds events to the end of a stream, all or none, and returns when they are on disk. A stream that has another version than
// expected is a *VersionError. See AppendAll.
func (s *Store) Append(ctx context.Context, stream StreamID, expected Expected, events ...Event) (Appended, error) {
	appended, err := s.AppendAll(ctx, Append{Stream: stream, Expected: expected, Events: events})
	if err != nil {
		return Appended{}, err
	}
	return appended[0], nil
}

// AppendAll adds events to several streams, each named once, all or none. Their positions follow each other in the order given.
//
// Where all events have ids that were appended before, to the same streams and in the same order, nothing is appended and the answer is
// that of the first time, whatever is expected. So a call that failed with state.ErrOutcomeUnknown or state.ErrUnavailable may be repeated. An id
// that is another event's is ErrIDTaken.
func (s *Store) AppendAll(ctx context.Context, appends ...Append) ([]Appended, error) {
	appended, _, err := s.append(ctx, appends, false)
	return appended, err
}

// append is AppendAll. Closing is an event that ends its stream. Sealed is what the engine was given, if it was.
func (s *Store) append(ctx context.Context, appends []Append, closing bool) (appended []Appended, sealed []Append, err error) {
	own, err := complete(appends)
	if err == nil && !closing {
		err = checkTypes(own)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("eventstore: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("eventstore: %w", err)
	}
	if err := s.keyring.seal(ctx, own); err != nil {
		return nil, nil, fmt.Errorf("append to %s: %w", own[0].Stream, err)
	}
	if appended, err = s.engine.Append(ctx, own); err != nil {
		return nil, own, fmt.Errorf("eventstore: append to %s: %w", own[0].Stream, err)
	}
	if last := appended[len(appended)-1]; !last.Repeated {
		s.appended(ctx, last.Position)
	}
	return appended, own, nil
}

// checkTypes refuses what ends a stream by the way.
func checkTypes(appends []Append) error {
	for _, a := range appends {
		for i := range a.Events {
			if a.Events[i].Type == ClosedType {
				return fmt.Errorf("%w: an event of the type %s ends its stream: close that instead", state.ErrInvalid, ClosedType)
			}
		}
	}
	return nil
}

// complete checks what is to be appended, and returns a copy that shares no memory with the caller.
func complete(appends []Append) ([]Append, error) {
	if len(appends) == 0 {
		return nil, fmt.Errorf("%w: an append names one stream at least", state.ErrInvalid)
	}
	own := slices.Clone(appends)
	var streams map[StreamID]bool
	var ids map[string]bool
	if len(own) > 1 {
		streams = map[StreamID]bool{}
	}
	if len(own) > 1 || len(own[0].Events) > 1 {
		ids = map[string]bool{}
	}
	total := 0
	for i := range own {
		a := &own[i]
		if err := a.Stream.check(); err != nil {
			return nil, err
		}
		if len(own) > 1 {
			if streams[a.Stream] {
				return nil, fmt.Errorf("%w: stream %s is named twice in one append", state.ErrInvalid, a.Stream)
			}
			streams[a.Stream] = true
		}
		if total += len(a.Events); len(a.Events) == 0 || total > MaxAppendEvents {
			return nil, fmt.Errorf("%w: an append has 1 to %d events, and one for each of its streams", state.ErrInvalid, MaxAppendEvents)
		}
		if a.Expected < Any {
			return nil, fmt.Errorf("%w: stream %s: version %d cannot be expected", state.ErrInvalid, a.Stream, a.Expected)
		}
		a.Events = slices.Clone(a.Events)
		for j := range a.Events {
			e := &a.Events[j]
			if err := e.complete(a.Stream); err != nil {
				return nil, fmt.Errorf("stream %s: %w", a.Stream, err)
			}
			if ids[e.ID] {
				return nil, fmt.Errorf("%w: two events of one append have the id %s", ErrIDTaken, e.ID)
			}
			if ids != nil {
				ids[e.ID] = true
			}
		}
	}
	return own, nil
}

// ErrIDTaken reports an event whose id another event has. Nothing was appended.
var ErrIDTaken = errors.New("the id of the event is taken")

// A VersionError reports a stream that has another version than expected. Nothing was appended. It is state.ErrConflict.
type VersionError struct {
	Stream   StreamID
	Expected Expected
	Actual   int64
}

// Error names the stream and both versions.
func (e *VersionError) Error() string {
	if e.Expected == NoStream {
		return fmt.Sprintf("stream %s exists, with version %d, and must not; nothing was appended", e.Stream, e.Actual)
	}
	return fmt.Sprintf("stream %s has version %d, and not %d as expected; nothing was appended", e.Stream, e.Actual, e.Expected)
}

// Is makes errors.Is(err, state.ErrConflict) true.
func (e *VersionError) Is(target error) bool { return target == state.ErrConflict }
