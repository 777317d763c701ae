// Package sequence decides what becomes of appends at the end of a log: the same on every engine, and without one.
package sequence

import (
	"errors"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// An End is what an engine has read of the end of its log, with what it will append. It is not safe for concurrent use.
type End struct {
	Position int64                         // of the last event
	Versions map[eventstore.StreamID]int64 // of the streams that are appended to; negative: it is closed
	Known    map[string]Place              // events that are in the log, by id; nil: there is one append, which repeats no id, and none is known
	Looked   bool                          // Known has all events with the ids that are to be appended
}

// A Place is where an event is.
type Place struct {
	Stream            eventstore.StreamID
	Version, Position int64
}

// ErrLook asks for the End to be made anew with Looked: only the ids tell whether this is a conflict or a repetition.
var ErrLook = errors.New("look for the ids")

// Add appends, and returns the rows to write: all, or none with an error that is the caller's own (*eventstore.VersionError,
// eventstore.ErrIDTaken) or ErrLook.
func (e *End) Add(appends []eventstore.Append) (appended []eventstore.Appended, rows []eventstore.Recorded, err error) {
	if known := e.known(appends); known > 0 {
		appended, err := e.repeated(appends)
		return appended, nil, err
	}
	for _, a := range appends {
		if e.Versions[a.Stream] < 0 {
			if !e.Looked {
				return nil, nil, ErrLook
			}
			return nil, nil, fmt.Errorf("stream %s: %w", a.Stream, eventstore.ErrStreamClosed)
		}
		if actual := e.Versions[a.Stream]; a.Expected != eventstore.Any && int64(a.Expected) != actual {
			if !e.Looked {
				return nil, nil, ErrLook
			}
			return nil, nil, &eventstore.VersionError{Stream: a.Stream, Expected: a.Expected, Actual: actual}
		}
	}
	for _, a := range appends {
		for _, event := range a.Events {
			e.Position++
			e.Versions[a.Stream]++
			r := eventstore.Recorded{Event: event, Stream: a.Stream, Version: e.Versions[a.Stream], Position: e.Position}
			if e.Known != nil {
				e.Known[event.ID] = Place{Stream: r.Stream, Version: r.Version, Position: r.Position}
			}
			rows = append(rows, r)
		}
		appended = append(appended, eventstore.Appended{Stream: a.Stream, Version: e.Versions[a.Stream], Position: e.Position})
		if Closing(a) {
			e.Versions[a.Stream] *= -1
		}
	}
	return appended, rows, nil
}

// Closing reports whether an append ends its stream.
func Closing(a eventstore.Append) bool {
	return a.Events[len(a.Events)-1].Type == eventstore.ClosedType
}

// known counts the events that are in the log already.
func (e *End) known(appends []eventstore.Append) (n int) {
	for _, a := range appends {
		for i := range a.Events {
			if _, ok := e.Known[a.Events[i].ID]; ok {
				n++
			}
		}
	}
	return n
}

// repeated is the answer of the first time, if every event is where that has put it.
func (e *End) repeated(appends []eventstore.Append) ([]eventstore.Appended, error) {
	var appended []eventstore.Appended
	for _, a := range appends {
		var last Place
		for i := range a.Events {
			place, ok := e.Known[a.Events[i].ID]
			switch {
			case !ok && !e.Looked:
				return nil, ErrLook
			case !ok:
				return nil, fmt.Errorf("%w: %s is new, and others of the same append are in the log already", eventstore.ErrIDTaken, a.Events[i].ID)
			case place.Stream != a.Stream || i > 0 && place.Version != last.Version+1:
				return nil, fmt.Errorf("%w: %s is version %d of stream %s", eventstore.ErrIDTaken, a.Events[i].ID, place.Version, place.Stream)
			}
			last = place
		}
		appended = append(appended, eventstore.Appended{Stream: a.Stream, Version: last.Version, Position: last.Position, Repeated: true})
	}
	return appended, nil
}
