package auth

import (
	"context"
	"errors"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// swap changes one value by compare-and-set: it reads, lets change say what is to be there and for how long, and writes if nobody
// else has written meanwhile, or else begins anew. An absent value is the zero one. Change may be called several times, and
// returns false to leave the value as it is.
func swap[T any](ctx context.Context, store *state.Store[T], key string, change func(v *T) (write bool, lives time.Duration, err error)) error {
	return state.RetryOnConflict(ctx, func() error {
		entry, err := store.GetWithETag(ctx, key)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		write, lives, err := change(&entry.Value)
		if err != nil || !write {
			return err
		}
		_, err = store.TrySaveWith(ctx, key, entry.Value, entry.ETag, state.SaveOptions{Expiry: state.After(lives)})
		return err
	})
}
