package state

import (
	"context"
	"fmt"
)

// An Op is one save or delete of a Transact.
type Op[T any] struct {
	Key    string
	Delete bool
	Value  T       // for saves
	ETag   *string // nil: whatever is there; "": only if absent (saves); else only if the key has it
	Expiry Expiry  // for saves
}

// Transact makes up to 1000 changes, all or none, and returns one Result per change, in order. If the condition of any
// of them does not hold it changes nothing and returns a *ConflictError (errors.Is ErrConflict) that names the keys. A
// key may appear only once.
//
// On Redis all keys must share a hash tag, a part in braces such as "{order-7}:lines": otherwise ErrUnsupported.
func (s *Store[T]) Transact(ctx context.Context, ops []Op[T]) ([]Result, error) {
	keys := make([]string, len(ops))
	for i := range ops {
		keys[i] = ops[i].Key
	}
	var results []Result
	err := s.store.many(ctx, opTransact, keys, func() (err error) {
		changes := make([]Change, len(ops))
		for i := range ops {
			if changes[i], err = ops[i].change(s.store); err != nil {
				return err
			}
		}
		results, err = s.store.transact(ctx, changes, len(changes))
		return err
	})
	return results, err
}

func (o Op[T]) change(s *store) (Change, error) {
	if !o.Delete {
		return Item[T]{Key: o.Key, Value: o.Value, ETag: o.ETag, Expiry: o.Expiry}.change(s)
	}
	c := Change{Key: o.Key, Delete: true}
	if c.When, c.ETag = condition(o.ETag); c.When == IfAbsent {
		return Change{}, s.keyError(o.Key, fmt.Errorf("%w: a conditional delete needs an ETag", ErrInvalid))
	}
	return c, nil
}

// transact makes changes, all or none. The first of them, so many as told, are told of.
func (s *store) transact(ctx context.Context, changes []Change, told int) ([]Result, error) {
	if err := checkDistinct(changes); err != nil {
		return nil, s.storeError(err)
	}
	s.announced(ctx, changes[:told])
	outcomes, err := s.engine.Transact(ctx, changes)
	if err != nil {
		s.added(err)
		return nil, err
	}
	var conflicts []string
	results := make([]Result, len(changes))
	for i, o := range outcomes {
		results[i] = Result{Key: changes[i].Key, Done: o.Done, ETag: o.ETag, Version: o.Version}
		if o.Conflict {
			conflicts = append(conflicts, changes[i].Key)
		}
	}
	if conflicts != nil {
		return nil, &ConflictError{Store: s.cfg.Name, Keys: conflicts}
	}
	for i, o := range outcomes[:told] {
		s.changed(ctx, changes[i], o)
	}
	return results, nil
}
