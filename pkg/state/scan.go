package state

import "context"

// A Scanner is an Engine whose keys can be walked while the store is in use.
type Scanner interface {
	Engine

	// Scan returns about as many keys as limit says, in an order of the engine's own, and the cursor of the next call. The
	// empty cursor begins; an empty next one says that these were the last. Keys may be none before the end. No key is twice
	// in one answer.
	//
	// A key that is present from the first call of a walk to the last is met at least once. One that is written for the first
	// time, deleted or expires meanwhile may be met or not, and a key may be met again. Scan never blocks writers for longer
	// than it takes to find one answer.
	//
	// A cursor may be kept, and used by another process. One that the engine cannot go on from any more is ErrCursor: the walk
	// has to begin again.
	Scan(ctx context.Context, cursor string, limit int) (keys []string, next string, err error)
}
