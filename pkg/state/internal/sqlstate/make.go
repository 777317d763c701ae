package sqlstate

import (
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// How long after a failure an index is tried again: first, and at most.
const (
	indexPause    = time.Second
	maxIndexPause = time.Minute
)

// MakeIndexes makes each of the wanted indexes unless it is there, and publishes those that are. One that fails keeps none
// of the others from being made; it is tried again until ctx ends. failed hears of it.
func MakeIndexes(ctx context.Context, wanted []Index, there *atomic.Pointer[[]Index], create func(ctx context.Context, ix Index) error, failed func(ix Index, err error)) {
	var made []Index
	for pause := indexPause; ; pause = min(2*pause, maxIndexPause) {
		var missing []Index
		for _, ix := range wanted {
			if err := create(ctx, ix); err != nil {
				if ctx.Err() != nil {
					return
				}
				failed(ix, err)
				missing = append(missing, ix)
				continue
			}
			made = append(made, ix)
			published := slices.Clone(made)
			there.Store(&published)
		}
		if wanted = missing; len(wanted) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}
