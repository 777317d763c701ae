package eventstore

import (
	"context"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A StreamVersion is a stream with the number of its events.
type StreamVersion struct {
	Stream  StreamID
	Version int64
}

// Streams returns the streams of a category in the order of the bytes of their ids, at most limit of those behind the id after; "" is before
// all of them. Fewer than limit are the last.
func (s *Store) Streams(ctx context.Context, category, after string, limit int) ([]StreamVersion, error) {
	if err := checkCategory(category); err != nil {
		return nil, fmt.Errorf("eventstore: %w", err)
	}
	if limit < 1 {
		return nil, fmt.Errorf("eventstore: %w: list 1 stream at least", state.ErrInvalid)
	}
	all, err := s.engine.Streams(ctx, category, after, limit)
	if err != nil {
		return nil, fmt.Errorf("eventstore: list the streams of %q: %w", category, err)
	}
	return all, nil
}
