package state

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// conflictTries is how often RetryOnConflict runs what loses a race.
const conflictTries = 20

// RetryOnConflict runs do, which reads a value and writes it with the ETag that it has read, until it ends with something else than
// ErrConflict; after 20 tries it returns that. Between two tries it waits for a random time, of at most 2, 4, 8, 16 and from then on 32 ms,
// so that those who compete come at different times. When ctx ends meanwhile, the error is both the cause of that and the conflict.
func RetryOnConflict(ctx context.Context, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if !errors.Is(err, ErrConflict) || try == conflictTries {
			return err
		}
		select {
		case <-time.After(rand.N(time.Millisecond << min(try, 5))): //nolint:gosec // spreads those who compete, guards nothing
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}
