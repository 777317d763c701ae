package eventstore

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// FollowOptions say what is followed, and from where.
type FollowOptions struct {
	// Category and ID say which events: with neither all, with a category those of it, with both those of one stream.
	Category string
	ID       string
	// From is the first position, or version of a stream. 0: the beginning.
	From int64
	// Poll is how often is looked for events of which no hint came. Default: 250 ms.
	Poll time.Duration
}

// Follow reads what there is, and then what comes, until ctx ends, which is no error. Nothing is kept of it, and nothing is shared: it is for
// who looks on. Who has to handle each event takes a Subscription. The first error ends it; the reader may begin again behind the last event.
func (s *Store) Follow(ctx context.Context, o FollowOptions) iter.Seq2[Recorded, error] {
	r := Range{Category: o.Category, ID: o.ID, From: max(o.From, 1), Limit: pageEvents}
	if err := r.check(); err != nil {
		return failed(err)
	}
	if o.Poll <= 0 {
		o.Poll = defaultPoll
	}
	return func(yield func(Recorded, error) bool) {
		for {
			news := s.News() // before it is looked, so that none is missed
			events, more, err := s.page(ctx, r)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				yield(Recorded{}, fmt.Errorf("eventstore: follow: %w", err))
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
				r.From = r.next(e)
			}
			if more && len(events) > 0 {
				continue
			}
			timer := time.NewTimer(o.Poll)
			select {
			case <-ctx.Done():
			case <-news:
			case <-timer.C:
			}
			timer.Stop()
			if ctx.Err() != nil {
				return
			}
		}
	}
}

// check accepts a part of the log.
func (r Range) check() error {
	switch {
	case r.ID != "":
		return StreamID{r.Category, r.ID}.check()
	case r.Category != "":
		return checkCategory(r.Category)
	case r.From < 0:
		return fmt.Errorf("%w: a read begins at 0 or above", state.ErrInvalid)
	default:
		return nil
	}
}
