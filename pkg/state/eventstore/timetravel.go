package eventstore

import (
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

func latest(Recorded) bool { return true }

// LoadVersion returns the aggregate as it was at a version. state.ErrNotFound: it has not come so far.
func (a *Aggregate[S]) LoadVersion(ctx context.Context, id string, version int64) (Loaded[S], error) {
	if version < 0 {
		return Loaded[S]{}, fmt.Errorf("eventstore: %w: versions are 0 and above", state.ErrInvalid)
	}
	stream := StreamID{Category: a.cfg.Category, ID: id}
	r, err := a.load(ctx, stream, func(e Recorded) bool { return e.Version <= version })
	if err == nil && r.Version < version {
		err = fmt.Errorf("eventstore: %w: stream %s has %d versions, and not %d", state.ErrNotFound, stream, r.Version, version)
	}
	return r.Loaded, err
}

// LoadAt returns the aggregate as it was at an instant, by the clock of the engine: after its events up to the first that was recorded later.
func (a *Aggregate[S]) LoadAt(ctx context.Context, id string, instant time.Time) (Loaded[S], error) {
	r, err := a.load(ctx, StreamID{Category: a.cfg.Category, ID: id}, func(e Recorded) bool { return !e.RecordedAt.After(instant) })
	return r.Loaded, err
}

// StateAt is LoadVersion with the state as JSON, for who does not know its type.
func (a *Aggregate[S]) StateAt(ctx context.Context, id string, version int64) (jsontext.Value, error) {
	loaded, err := a.LoadVersion(ctx, id, version)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(loaded.State)
	if err != nil {
		return nil, fmt.Errorf("eventstore: %w: the state of %s/%s is no JSON: %w", state.ErrUnsupported, a.cfg.Category, id, err)
	}
	return data, nil
}

// Diff tells what changed in the state between two versions, in either order.
func (a *Aggregate[S]) Diff(ctx context.Context, id string, from, to int64) ([]Change, error) {
	before, err := a.StateAt(ctx, id, from)
	if err != nil {
		return nil, err
	}
	after, err := a.StateAt(ctx, id, to)
	if err != nil {
		return nil, err
	}
	return Compare(before, after)
}

// VersionAt returns the version that a stream had at an instant, by the clock of the engine; 0: it did not exist. Where that clock was set back, it is
// one of those of which this can be said.
func (s *Store) VersionAt(ctx context.Context, stream StreamID, instant time.Time) (int64, error) {
	var last int64
	for e, err := range s.ReadStream(ctx, stream, ReadOptions{Backward: true, Limit: 1}) {
		if err != nil {
			return 0, err
		}
		if last = e.Version; !e.RecordedAt.After(instant) {
			return last, nil
		}
	}
	low, high := int64(0), last // low was recorded by then, high was not
	for high-low > 1 {
		middle := low + (high-low)/2
		e, found, err := s.eventAt(ctx, stream, middle)
		switch {
		case err != nil:
			return 0, err
		case !found:
			return 0, fmt.Errorf("eventstore: %w: stream %s has no version %d, and later ones", state.ErrCorrupt, stream, middle)
		case e.RecordedAt.After(instant):
			high = middle
		default:
			low = middle
		}
	}
	return low, nil
}
