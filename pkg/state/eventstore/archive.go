package eventstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// ClosedType is the type of the event that ends a stream. No other event may have it.
const ClosedType = "$closed"

// A StreamClosed is what Types decode an event of ClosedType to. Aggregates are not given it.
type StreamClosed struct{}

// ErrStreamClosed reports an append to a stream that is closed. Nothing was appended.
var ErrStreamClosed = errors.New("the stream is closed, and nothing is appended to it any more")

// CloseStream ends a stream with an event of ClosedType, on condition that it has a version, as an append does. It cannot be opened again. state.ErrNotFound:
// it does not exist. A stream that is closed already is ErrStreamClosed.
func (s *Store) CloseStream(ctx context.Context, stream StreamID, expected Expected) (Appended, error) {
	if err := stream.check(); err != nil {
		return Appended{}, fmt.Errorf("eventstore: %w", err)
	}
	_, found, err := s.eventAt(ctx, stream, 1)
	if err != nil {
		return Appended{}, err
	}
	if !found || expected == NoStream {
		return Appended{}, fmt.Errorf("eventstore: %w: stream %s does not exist, and cannot be closed", state.ErrNotFound, stream)
	}
	closing := Append{Stream: stream, Expected: expected, Events: []Event{{Type: ClosedType, Data: jsontext.Value("{}"), Metadata: metadataOf(ctx)}}}
	appended, _, err := s.append(ctx, []Append{closing}, true)
	if err != nil {
		return Appended{}, err
	}
	return appended[0], nil
}

// Archive moves the data of a closed stream's events to the log's archive, and returns how many it moved. They are read as before, by a further look
// for each page that has some; their versions, positions and ids stay in the log. It may be repeated after an error. state.ErrConflict: the stream is
// not closed. state.ErrNotFound: it does not exist.
func (s *Store) Archive(ctx context.Context, stream StreamID) (int64, error) {
	if err := stream.check(); err != nil {
		return 0, fmt.Errorf("eventstore: %w", err)
	}
	for last, err := range s.ReadStream(ctx, stream, ReadOptions{Backward: true, Limit: 1}) {
		if err != nil {
			return 0, err
		}
		if last.Type != ClosedType {
			return 0, fmt.Errorf("eventstore: %w: stream %s is not closed; close it first", state.ErrConflict, stream)
		}
		moved, err := s.engine.Archive(ctx, stream, last.Version)
		if err != nil {
			return moved, fmt.Errorf("eventstore: archive %s: %w", stream, err)
		}
		return moved, nil
	}
	return 0, fmt.Errorf("eventstore: %w: stream %s does not exist, and cannot be archived", state.ErrNotFound, stream)
}
