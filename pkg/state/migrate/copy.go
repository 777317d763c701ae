package migrate

import (
	"context"
	"errors"
	"fmt"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// rounds is how often what differs is carried again before it is left to those who write it.
const rounds = 3

// Copy brings the new place to what the old one has, and compares the two. It begins the phase mirror, so that nodes which know of the
// migration carry what they change meanwhile. It may be interrupted and done again, and goes on where it was; when it was through, it
// does it all anew and writes only what differs.
//
// The error is nil when both were found to be the same. Keys that the new place does not take are ErrRefused, and named in it.
func (m *Migration) Copy(ctx context.Context) (Comparison, error) {
	var found Comparison
	err := m.locked(ctx, func(ctx context.Context) (err error) {
		found, err = m.copy(ctx)
		return err
	})
	return found, err
}

func (m *Migration) copy(ctx context.Context) (Comparison, error) {
	note, err := m.beginMirror(ctx)
	if err != nil {
		return Comparison{}, err
	}
	mark, err := m.checkpoint(ctx)
	if err != nil {
		return Comparison{}, err
	}
	if mark.Copied {
		mark = checkpoint{To: m.to.where}
	}
	if mark.Cursor == "" {
		if err := m.patiently(ctx, func(ctx context.Context) (err error) {
			mark.Total, err = m.from.engine.Len(ctx)
			return err
		}); err != nil {
			return Comparison{}, err
		}
	}
	c := m.carrier(ctx, m.from, m.to)
	var refused []KeyError
	size := batchKeys
	for mark.Keys, mark.Compare = max(mark.Keys, 0), false; !mark.Copied; {
		var keys []string
		var next string
		err := m.patiently(ctx, func(ctx context.Context) (err error) {
			keys, next, err = m.from.engine.Scan(ctx, mark.Cursor, batchKeys)
			return err
		})
		if errors.Is(err, state.ErrCursor) {
			mark.Cursor, mark.Keys = "", 0 // what was copied is found to be the same
			continue
		}
		if err != nil {
			return Comparison{}, err
		}
		bad, err := m.carryAll(ctx, c, keys, &size)
		if refused = append(refused, bad...); err != nil {
			return Comparison{}, err
		}
		mark.Cursor, mark.Copied = next, next == ""
		mark.Keys += int64(len(keys))
		if err := m.patiently(ctx, func(ctx context.Context) error { return m.setCheckpoint(ctx, mark) }); err != nil {
			return Comparison{}, err
		}
		m.o.Report(Progress{Step: "copy", Keys: mark.Keys, Total: mark.Total})
	}
	found, err := m.agree(ctx, m.from, m.to)
	if err != nil {
		return found, err
	}
	if len(refused) > 0 {
		return found, refusedError(m.to, refused)
	}
	if found.Different == 0 { // what is busy is carried by those who write it
		if note != "" {
			if err := m.settled(ctx, m.from, note); err != nil { // or the next step compares
				return found, err
			}
		}
		mark.Compare = true
		return found, m.patiently(ctx, func(ctx context.Context) error { return m.setCheckpoint(ctx, mark) })
	}
	return found, nil
}

// carrier is one that carries while the lock is held: what it creates after that goes by itself.
func (m *Migration) carrier(ctx context.Context, from, to *side) carrier {
	return carrier{from: from.engine, to: to.engine, entitled: func() error { return context.Cause(ctx) }}
}

// refusedError names the first keys of all.
func refusedError(to *side, refused []KeyError) error {
	errs := []error{fmt.Errorf("%w: %d keys do not fit %s; change or delete them, and copy again", ErrRefused, len(refused), to.name)}
	for _, r := range refused[:min(len(refused), 10)] {
		errs = append(errs, r)
	}
	return errors.Join(errs...)
}

// carryAll carries keys in batches of no more than some bytes.
func (m *Migration) carryAll(ctx context.Context, c carrier, keys []string, size *int) ([]KeyError, error) {
	var refused []KeyError
	for len(keys) > 0 {
		n := min(len(keys), *size)
		measured := &measure{Engine: c.from}
		batch := carrier{from: measured, to: c.to, always: c.always, entitled: c.entitled}
		err := m.patiently(ctx, func(ctx context.Context) error {
			measured.bytes = 0
			bad, err := batch.carry(ctx, keys[:n])
			if err == nil {
				refused = append(refused, bad...)
			}
			return err
		})
		if err != nil {
			return refused, err
		}
		keys = keys[n:]
		switch {
		case measured.bytes > batchBytes:
			*size = max(*size/2, 1)
		case measured.bytes < batchBytes/4:
			*size = min(*size*2, batchKeys)
		}
	}
	return refused, nil
}

// A measure counts the bytes that are read.
type measure struct {
	state.Engine
	bytes int
}

func (e *measure) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	records, err := e.Engine.Get(ctx, keys)
	for i := range records {
		e.bytes += len(records[i].Value)
	}
	return records, err
}

// Compare compares both places and changes nothing.
func (m *Migration) Compare(ctx context.Context) (Comparison, error) {
	found, _, err := m.compare(ctx, m.from, m.to)
	return found, err
}

// compare walks over both places, and returns all keys that differ.
func (m *Migration) compare(ctx context.Context, from, to *side) (Comparison, []string, error) {
	c := &comparer{from: from.engine, to: to.engine, most: m.o.Differences}
	var differ []string
	var total, met int64
	if err := m.patiently(ctx, func(ctx context.Context) (err error) {
		total, err = from.engine.Len(ctx)
		return err
	}); err != nil {
		return Comparison{}, nil, err
	}
	look := func(keys []string) error {
		for size := batchKeys; len(keys) > 0; {
			n := min(len(keys), size)
			before := c.found
			var some []string
			err := m.patiently(ctx, func(ctx context.Context) (err error) {
				c.found = before
				some, err = c.keys(ctx, keys[:n])
				return err
			})
			if err != nil {
				return err
			}
			differ = append(differ, some...)
			keys = keys[n:]
		}
		return nil
	}
	if err := m.each(ctx, from, func(keys []string) error {
		met += int64(len(keys))
		m.o.Report(Progress{Step: "compare", Keys: met, Total: total})
		return look(keys)
	}); err != nil {
		return Comparison{}, nil, err
	}
	// What is only in the other place.
	err := m.each(ctx, to, func(keys []string) error {
		var present []bool
		if err := m.patiently(ctx, func(ctx context.Context) (err error) {
			present, err = exists(ctx, from.engine, keys)
			return err
		}); err != nil {
			return err
		}
		var only []string
		for i, key := range keys {
			if !present[i] {
				only = append(only, key)
			}
		}
		return look(only)
	})
	return c.found, differ, err
}

func exists(ctx context.Context, e state.Engine, keys []string) ([]bool, error) {
	var present []bool
	for len(keys) > 0 {
		n := min(len(keys), state.MaxBulkKeys)
		some, err := e.Exists(ctx, keys[:n])
		if err != nil {
			return nil, err
		}
		present, keys = append(present, some...), keys[n:]
	}
	return present, nil
}

// each walks over all keys of a side, each once, from the beginning if the walk cannot go on.
func (m *Migration) each(ctx context.Context, s *side, do func(keys []string) error) error {
	once := newSeen()
	for cursor := ""; ; {
		var keys []string
		var next string
		err := m.patiently(ctx, func(ctx context.Context) (err error) {
			keys, next, err = s.engine.Scan(ctx, cursor, batchKeys)
			return err
		})
		if errors.Is(err, state.ErrCursor) {
			cursor = ""
			continue
		}
		if err != nil {
			return err
		}
		if keys = once.fresh(keys); len(keys) > 0 {
			if err := do(keys); err != nil {
				return err
			}
		}
		if cursor = next; cursor == "" {
			return nil
		}
	}
}

// agree compares, and carries what differs, a few times. What was neither carried nor noted is carried by it.
func (m *Migration) agree(ctx context.Context, from, to *side) (found Comparison, err error) {
	for range rounds {
		var differ []string
		if found, differ, err = m.compare(ctx, from, to); err != nil || len(differ) == 0 {
			return found, err
		}
		size := batchKeys
		if _, err := m.carryAll(ctx, m.carrier(ctx, from, to), differ, &size); err != nil {
			return found, err
		}
	}
	found, _, err = m.compare(ctx, from, to)
	return found, err
}
