package permissions

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

const (
	indexShards = 256
	indexRead   = 64 // shards at a time
	// indexPatience is how long a session that is in the index may take to be there: longer than an operation.
	indexPatience = time.Minute
)

// An index finds the sessions that there are: stores cannot list their keys. It is ids alone, in shards. A session is entered before it is
// written, so that none is missing, and taken out by who finds that it is gone.
type index struct {
	factory *state.Factory
	now     func() time.Time
}

// A shard is the ids of some sessions, with when they were entered (Unix, in seconds).
type shard map[string]int64

// An indexed is a session in the index, and when it was entered.
type indexed struct {
	sessionID string
	at        int64
}

func shardKey(n int) string { return fmt.Sprintf("index:%03d", n) }

func shardOf(sessionID string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(sessionID))
	return shardKey(int(h.Sum32() % indexShards))
}

func (x index) change(ctx context.Context, key string, change func(s shard) bool) error {
	store, err := state.Open[shard](ctx, x.factory, SessionStore)
	if err != nil {
		return err
	}
	return state.RetryOnConflict(ctx, func() error {
		kept, err := store.GetWithETag(ctx, key)
		if err = absent(err); err != nil {
			return err
		}
		if kept.Value == nil {
			kept.Value = shard{}
		}
		if !change(kept.Value) {
			return nil
		}
		_, err = store.TrySaveWith(ctx, key, kept.Value, kept.ETag, state.SaveOptions{Expiry: state.Never})
		return err
	})
}

// enter puts a session in that is about to be written.
func (x index) enter(ctx context.Context, sessionID string) error {
	now := x.now().Unix()
	return x.change(ctx, shardOf(sessionID), func(s shard) bool {
		at, known := s[sessionID]
		if known && now-at < int64(indexPatience/time.Second)/4 {
			return false
		}
		s[sessionID] = now
		return true
	})
}

// leave takes sessions out of a shard that are gone, and were not entered a moment ago.
func (x index) leave(ctx context.Context, key string, gone shard) error {
	before := x.now().Add(-indexPatience).Unix()
	return x.change(ctx, key, func(s shard) (changed bool) {
		for id, at := range gone {
			if s[id] == at && at < before {
				delete(s, id)
				changed = true
			}
		}
		return changed
	})
}

// shards calls fn with some of the shards at a time, until all have been read.
func (x index) shards(ctx context.Context, fn func(some []state.Entry[shard]) error) error {
	store, err := state.Open[shard](ctx, x.factory, SessionStore)
	if err != nil {
		return err
	}
	keys := make([]string, indexShards)
	for n := range keys {
		keys[n] = shardKey(n)
	}
	for some := range slices.Chunk(keys, indexRead) {
		entries, err := store.GetBulk(ctx, some)
		if err != nil {
			return err
		}
		if err := fn(entries); err != nil {
			return err
		}
	}
	return nil
}
