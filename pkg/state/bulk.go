package state

import (
	"context"
	"fmt"
)

// An Item is one save of a SaveBulk.
type Item[T any] struct {
	Key    string
	Value  T
	ETag   *string // nil: whatever is there; "": only if absent; else only if the key has it
	Expiry Expiry
}

// A Result tells what became of one change of a bulk call or a transaction.
type Result struct {
	Key     string
	Done    bool   // the change was made; false for the delete of an absent key
	ETag    string // of the value saved
	Version int64  // of the value saved
	Err     error  // why this change was not made, such as ErrConflict; always nil after Transact
}

// GetBulk reads up to 1000 keys in one round trip and returns one entry per key, in order. An absent key is an entry
// with Found false.
func (s *Store[T]) GetBulk(ctx context.Context, keys []string) ([]Entry[T], error) {
	var entries []Entry[T]
	err := s.store.many(ctx, opGetBulk, keys, func() error {
		records, err := s.store.engine.Get(ctx, keys)
		if err != nil {
			return err
		}
		entries = make([]Entry[T], len(records))
		for i, r := range records {
			if !r.Found {
				entries[i] = Entry[T]{Key: r.Key}
				continue
			}
			if entries[i], err = entryOf[T](s.store, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// ExistsBulk reports for up to 1000 keys, in order, whether they are there.
func (s *Store[T]) ExistsBulk(ctx context.Context, keys []string) ([]bool, error) {
	var exists []bool
	err := s.store.many(ctx, opExistsBulk, keys, func() (err error) {
		exists, err = s.store.engine.Exists(ctx, keys)
		return err
	})
	return exists, err
}

// SaveBulk saves up to 1000 items, each on its own: one may fail, and says so in its Result, while the others are made.
// If an argument is bad nothing is saved. A key may appear only once.
func (s *Store[T]) SaveBulk(ctx context.Context, items []Item[T]) ([]Result, error) {
	keys := make([]string, len(items))
	for i := range items {
		keys[i] = items[i].Key
	}
	var results []Result
	err := s.store.many(ctx, opSaveBulk, keys, func() (err error) {
		changes := make([]Change, len(items))
		for i := range items {
			if changes[i], err = items[i].change(s.store); err != nil {
				return err
			}
		}
		results, err = s.store.applyAll(ctx, changes)
		return err
	})
	return results, err
}

// DeleteBulk deletes up to 1000 keys, each on its own. The Result of a key that was absent has Done false. A key may
// appear only once.
func (s *Store[T]) DeleteBulk(ctx context.Context, keys []string) ([]Result, error) {
	var results []Result
	err := s.store.many(ctx, opDeleteBulk, keys, func() (err error) {
		changes := make([]Change, len(keys))
		for i, key := range keys {
			changes[i] = Change{Key: key, Delete: true}
		}
		results, err = s.store.applyAll(ctx, changes)
		return err
	})
	return results, err
}

// change checks the item and turns it into what engines understand.
func (i Item[T]) change(s *store) (Change, error) {
	data, err := encode(i.Value)
	if err != nil {
		return Change{}, s.keyError(i.Key, err)
	}
	expiry, err := i.Expiry.resolve(s.cfg.DefaultTTL)
	if err != nil {
		return Change{}, s.keyError(i.Key, err)
	}
	_, raw := rawJSON(i.Value)
	c := Change{Key: i.Key, Value: data, Shared: raw, Expiry: expiry}
	c.When, c.ETag = condition(i.ETag)
	return c, nil
}

func condition(etag *string) (Condition, string) {
	switch {
	case etag == nil:
		return Always, ""
	case *etag == "":
		return IfAbsent, ""
	default:
		return IfETag, *etag
	}
}

// many runs an operation on several keys: checks first, then the measured work, which is left out if there are none.
func (s *store) many(ctx context.Context, op operation, keys []string, run func() error) error {
	return s.recorder.record(ctx, op, "", func() error {
		if err := checkKeys(keys); err != nil {
			return s.storeError(err)
		}
		if err := ctx.Err(); err != nil {
			return s.storeError(err)
		}
		if len(keys) == 0 {
			return nil
		}
		return run()
	})
}

// applyAll makes changes independently of each other.
func (s *store) applyAll(ctx context.Context, changes []Change) ([]Result, error) {
	if err := checkDistinct(changes); err != nil {
		return nil, s.storeError(err)
	}
	s.announced(ctx, changes)
	outcomes, err := s.engine.Apply(ctx, changes)
	if err != nil {
		s.added(err)
		return nil, err
	}
	if len(outcomes) != len(changes) {
		return nil, s.storeError(fmt.Errorf("%w: %d answers to %d changes", ErrOutcomeUnknown, len(outcomes), len(changes)))
	}
	results := make([]Result, len(changes))
	for i, o := range outcomes {
		results[i] = Result{Key: changes[i].Key, Done: o.Done, ETag: o.ETag, Version: o.Version, Err: o.Err}
		if o.Err == nil && o.Conflict {
			results[i].Err = s.conflict(changes[i])
		}
		if results[i].Err == nil {
			s.changed(ctx, changes[i], o)
		}
	}
	return results, nil
}
