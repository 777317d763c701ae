package state

import (
	"context"
	"fmt"
	"time"
)

// A Store keeps values of type T by key. It is safe for concurrent use; every method is one atomic step on its key, and
// compare-and-set is linear per key.
//
// A key is 1 to 255 bytes of UTF-8 without NUL; case matters. Other keys are ErrInvalid. A value is at most 4 MiB of
// JSON. Methods honour the context's deadline; without one, the engine's own timeouts hold.
type Store[T any] struct {
	store *store
}

// An Entry is a value with what is known about its key.
type Entry[T any] struct {
	Key       string
	Found     bool // false: the key is absent, and everything below is zero
	Value     T
	ETag      string // opaque; never the same twice for a key
	Version   int64  // 1 for a new key, plus 1 a save; starts again after a delete
	CreatedAt time.Time
	UpdatedAt time.Time
	ExpiresAt time.Time // zero: never
}

// SaveOptions are the choices of SaveWith and TrySaveWith.
type SaveOptions struct {
	Expiry Expiry
}

// Saved tells what a save made.
type Saved struct {
	ETag    string
	Version int64
}

// Name returns the store's name.
func (s *Store[T]) Name() string { return s.store.cfg.Name }

// Get returns the value of key, or ErrNotFound. A stored value that does not fit T is ErrCorrupt.
func (s *Store[T]) Get(ctx context.Context, key string) (T, error) {
	entry, err := s.GetWithETag(ctx, key)
	return entry.Value, err
}

// GetWithETag returns the value of key with its ETag, version and times, or ErrNotFound. They belong together: they are
// read in one step.
func (s *Store[T]) GetWithETag(ctx context.Context, key string) (Entry[T], error) {
	var entry Entry[T]
	err := s.store.one(ctx, opGet, key, func() error {
		records, err := s.store.engine.Get(ctx, []string{key})
		if err != nil {
			return err
		}
		if !records[0].Found {
			return s.store.keyError(key, ErrNotFound)
		}
		entry, err = entryOf[T](s.store, records[0])
		return err
	})
	return entry, err
}

// Save stores v under key, whatever is there, and returns the new ETag. Concurrent saves of one key all succeed; the
// last one stays.
func (s *Store[T]) Save(ctx context.Context, key string, v T) (etag string, err error) {
	saved, err := s.SaveWith(ctx, key, v, SaveOptions{})
	return saved.ETag, err
}

// SaveWith is Save with options.
func (s *Store[T]) SaveWith(ctx context.Context, key string, v T, o SaveOptions) (Saved, error) {
	return s.save(ctx, opSave, Item[T]{Key: key, Value: v, Expiry: o.Expiry})
}

// TrySave stores v under key if the key still has the ETag, and returns the new one. An empty etag means: only if the
// key is absent. If the condition does not hold it changes nothing and returns ErrConflict.
func (s *Store[T]) TrySave(ctx context.Context, key string, v T, etag string) (string, error) {
	saved, err := s.TrySaveWith(ctx, key, v, etag, SaveOptions{})
	return saved.ETag, err
}

// TrySaveWith is TrySave with options.
func (s *Store[T]) TrySaveWith(ctx context.Context, key string, v T, etag string, o SaveOptions) (Saved, error) {
	return s.save(ctx, opTrySave, Item[T]{Key: key, Value: v, ETag: &etag, Expiry: o.Expiry})
}

func (s *Store[T]) save(ctx context.Context, op operation, item Item[T]) (Saved, error) {
	var saved Saved
	err := s.store.one(ctx, op, item.Key, func() error {
		change, err := item.change(s.store)
		if err != nil {
			return err
		}
		outcome, err := s.store.apply(ctx, change)
		saved = Saved{ETag: outcome.ETag, Version: outcome.Version}
		return err
	})
	return saved, err
}

// Delete removes key and reports whether it was there.
func (s *Store[T]) Delete(ctx context.Context, key string) (deleted bool, err error) {
	err = s.store.one(ctx, opDelete, key, func() error {
		outcome, err := s.store.apply(ctx, Change{Key: key, Delete: true})
		deleted = outcome.Done
		return err
	})
	return deleted, err
}

// TryDelete removes key if it still has the ETag. It returns ErrConflict if the key has another one, and ErrNotFound if
// it is absent.
func (s *Store[T]) TryDelete(ctx context.Context, key, etag string) error {
	return s.store.one(ctx, opTryDelete, key, func() error {
		if etag == "" {
			return s.store.keyError(key, fmt.Errorf("%w: a conditional delete needs an ETag", ErrInvalid))
		}
		outcome, err := s.store.apply(ctx, Change{Key: key, Delete: true, When: IfETag, ETag: etag})
		if outcome.Absent {
			return s.store.keyError(key, ErrNotFound)
		}
		return err
	})
}

// Exists reports whether key is there.
func (s *Store[T]) Exists(ctx context.Context, key string) (bool, error) {
	var found bool
	err := s.store.one(ctx, opExists, key, func() error {
		exists, err := s.store.engine.Exists(ctx, []string{key})
		if err != nil {
			return err
		}
		found = exists[0]
		return nil
	})
	return found, err
}

// Len counts the keys of the store. It may take time in proportion to their number; it never blocks writers.
func (s *Store[T]) Len(ctx context.Context) (int64, error) { return s.store.len(ctx) }

func (s *store) len(ctx context.Context) (int64, error) {
	var n int64
	err := s.recorder.record(ctx, opLen, "", func() (err error) {
		if err = ctx.Err(); err != nil {
			return s.storeError(err)
		}
		n, err = s.engine.Len(ctx)
		return err
	})
	return n, err
}

// one runs an operation on one key: checks first, then the measured work.
func (s *store) one(ctx context.Context, op operation, key string, run func() error) error {
	return s.recorder.record(ctx, op, key, func() error {
		if err := checkKey(key); err != nil {
			return s.storeError(err)
		}
		if err := ctx.Err(); err != nil {
			return s.keyError(key, err)
		}
		return run()
	})
}

// apply makes one change and turns its outcome into an error where it was not made as asked.
func (s *store) apply(ctx context.Context, c Change) (Outcome, error) {
	changes := []Change{c}
	s.announced(ctx, changes)
	outcomes, err := s.engine.Apply(ctx, changes)
	if err != nil {
		s.added(err)
		return Outcome{}, err
	}
	outcome := outcomes[0]
	switch {
	case outcome.Err != nil:
		return Outcome{}, outcome.Err
	case outcome.Conflict:
		return outcome, s.conflict(c)
	}
	s.changed(ctx, c, outcome)
	return outcome, nil
}

// changed tells of a change that was made: the factory's OnChange, or that the outbox has its entry.
func (s *store) changed(ctx context.Context, c Change, o Outcome) {
	notify := s.factory.options.OnChange
	switch {
	case !o.Done || !s.cfg.PublishChanges:
	case s.announce != nil:
		s.added(nil)
	case notify != nil:
		notify(ctx, s.event(c.Key, c.Delete, o))
	}
}

func (s *store) event(key string, deleted bool, o Outcome) Changed {
	event := Changed{Store: s.cfg.Name, Key: key, Operation: OperationSave, ETag: o.ETag}
	if deleted {
		event.Operation, event.ETag = OperationDelete, ""
	}
	return event
}

func (s *store) conflict(c Change) error {
	reason := "it has been changed or deleted since"
	if c.When == IfAbsent {
		reason = "it exists already"
	}
	return s.keyError(c.Key, fmt.Errorf("%w: %s", ErrConflict, reason))
}

func (s *store) storeError(err error) error {
	return fmt.Errorf("state: store %q: %w", s.cfg.Name, err)
}

func (s *store) keyError(key string, err error) error {
	return fmt.Errorf("state: store %q: key %q: %w", s.cfg.Name, key, err)
}

// entryOf decodes a record that was found.
func entryOf[T any](s *store, r Record) (Entry[T], error) {
	v, err := decode[T](r.Value)
	if err != nil {
		return Entry[T]{}, s.keyError(r.Key, err)
	}
	return Entry[T]{
		Key: r.Key, Found: true, Value: v, ETag: r.ETag, Version: r.Version,
		CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt, ExpiresAt: r.ExpiresAt,
	}, nil
}
