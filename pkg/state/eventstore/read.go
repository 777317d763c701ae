package eventstore

import (
	"context"
	"fmt"
	"iter"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// ReadOptions say where reading begins and ends.
type ReadOptions struct {
	// From is the first position to read, or version when a stream is read. 0: the beginning, or when reading backward the end.
	From int64
	// Backward reads from the newest to the oldest.
	Backward bool
	// Limit is how many events are read at most. 0: to the end that there is when it is reached.
	Limit int
}

// ReadAll reads the log by position. Events are fetched in pages, so memory does not grow with the log, and no connection is held while the
// caller handles one. The first error ends it.
func (s *Store) ReadAll(ctx context.Context, o ReadOptions) iter.Seq2[Recorded, error] {
	return s.read(ctx, Range{}, o)
}

// ReadCategory reads the events of all streams of a category by position, as ReadAll does.
func (s *Store) ReadCategory(ctx context.Context, category string, o ReadOptions) iter.Seq2[Recorded, error] {
	if err := checkCategory(category); err != nil {
		return failed(err)
	}
	return s.read(ctx, Range{Category: category}, o)
}

// ReadStream reads one stream by version, as ReadAll does. A stream that does not exist has no events.
func (s *Store) ReadStream(ctx context.Context, stream StreamID, o ReadOptions) iter.Seq2[Recorded, error] {
	if err := stream.check(); err != nil {
		return failed(err)
	}
	return s.read(ctx, Range{Category: stream.Category, ID: stream.ID}, o)
}

// Head returns the position of the last event; 0: there is none.
func (s *Store) Head(ctx context.Context) (int64, error) {
	head, err := s.engine.Head(ctx)
	if err != nil {
		return 0, fmt.Errorf("eventstore: read the end: %w", err)
	}
	return head, nil
}

func failed(err error) iter.Seq2[Recorded, error] {
	return func(yield func(Recorded, error) bool) { yield(Recorded{}, fmt.Errorf("eventstore: %w", err)) }
}

// pageEvents is how many events are fetched at once, first; and then up to mostEvents, while a page has less than pageBytes.
const (
	pageEvents = 512
	mostEvents = 2048
	pageBytes  = 1 << 20
)

func (s *Store) read(ctx context.Context, r Range, o ReadOptions) iter.Seq2[Recorded, error] {
	if o.From < 0 || o.Limit < 0 {
		return failed(fmt.Errorf("%w: a read begins at 0 or above, and its limit is not negative", state.ErrInvalid))
	}
	return func(yield func(Recorded, error) bool) {
		r.From, r.Backward, r.Limit = o.From, o.Backward, pageEvents
		if o.Limit > 0 {
			r.Limit = min(r.Limit, o.Limit)
		}
		pages := &pages{store: s, next: r, left: o.Limit}
		defer pages.close()
		for {
			events, more, err := pages.fetch(ctx)
			if err != nil {
				yield(Recorded{}, fmt.Errorf("eventstore: read: %w", err))
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
			if !more {
				return
			}
		}
	}
}

// page reads from the engine, and decrypts.
func (s *Store) page(ctx context.Context, r Range) (events []Recorded, more bool, err error) {
	if events, more, err = s.engine.Read(ctx, r); err != nil {
		return nil, false, err
	}
	if err := s.open(ctx, events); err != nil {
		return nil, false, err
	}
	return events, more, nil
}

// open decrypts the personal members of events.
func (s *Store) open(ctx context.Context, events []Recorded) error {
	return s.keyring.open(ctx, s.engine, events)
}

// Reveal decrypts the personal members of events that a step's own Read has returned, with keys that are read in the step. It is for who stands in
// for a part of this package; who reads by way of the Store has them in the clear.
func (s *Store) Reveal(ctx context.Context, w Within, events []Recorded) error {
	return s.keyring.unknowing().open(ctx, w, events)
}

// RenewKeys has the keys of subjects asked for again that this process knows: what is read from now on shows nothing of who was erased before, wherever that was.
func (s *Store) RenewKeys() { s.keyring.renew() }

// next is where the page after an event begins.
func (r Range) next(last Recorded) int64 {
	at := last.Position
	if r.ID != "" {
		at = last.Version
	}
	if r.Backward {
		return at - 1
	}
	return at + 1
}
