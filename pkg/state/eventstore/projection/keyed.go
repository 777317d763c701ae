package projection

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// Keyed keeps a projection in a state store, of any engine: a row for each key that events are about, under Version.Key.
type Keyed[V any] struct {
	// Store has the rows of all versions.
	Store *state.Store[Row[V]]
	// Keys are the rows that an event changes. They come from what an eraser leaves: Drop asks for them again. A key has at most 200 bytes.
	Keys func(e eventstore.Recorded) []string
	// Apply changes a row for an event; the first one finds the zero value. Rows are not deleted: a value says itself that it is over.
	Apply func(current *V, key string, e eventstore.Recorded) error
}

// A Row is a value, with what it is made of.
type Row[V any] struct {
	Of       string  `json:"of"`            // the Version, to query by
	Position int64   `json:"position"`      // of the last event in it
	Late     []int64 `json:"late,omitzero"` // positions of those that were applied when their stream, which was parked, was released
	Value    V       `json:"value"`
}

// Into is the Target of rows by key.
func Into[V any](k Keyed[V]) Target { return keyed[V]{k} }

type keyed[V any] struct{ Keyed[V] }

// apply changes as many rows at once as a call takes. An event that a row has already is left out, and a row that somebody else has changed
// since it was read is not written: so it does no harm that events come again, or a follower goes on that has lost its lease.
func (k keyed[V]) apply(ctx context.Context, b Batch) error {
	for events := b.Events; len(events) > 0; {
		rows := map[string][]eventstore.Recorded{}
		n := 0
		for ; n < len(events); n++ {
			keys := k.Keys(events[n])
			if n > 0 && len(rows)+len(keys) > state.MaxBulkKeys {
				break
			}
			for _, key := range keys {
				rows[key] = append(rows[key], events[n])
			}
		}
		events = events[n:]
		if err := k.change(ctx, b.Version, rows); err != nil {
			return err
		}
	}
	return nil
}

// change applies to each row the events that are about it.
func (k keyed[V]) change(ctx context.Context, v Version, rows map[string][]eventstore.Recorded) error {
	keys := make([]string, 0, len(rows))
	for key := range rows {
		keys = append(keys, v.Key(key))
	}
	if len(keys) == 0 {
		return nil
	}
	slices.Sort(keys)
	entries, err := k.Store.GetBulk(ctx, keys)
	if err != nil {
		return err
	}
	var items []state.Item[Row[V]]
	late := eventstore.Released(ctx)
	prefix := len(v.Key(""))
	for _, entry := range entries {
		row, key, changed := entry.Value, entry.Key[prefix:], false
		for _, e := range rows[key] {
			if has(&row, e.Position, late) {
				continue
			}
			if err := k.Apply(&row.Value, key, e); err != nil {
				return fmt.Errorf("row %s: %w", key, err)
			}
			if late {
				row.Late = append(slices.Clone(row.Late), e.Position)
			}
			row.Position = max(row.Position, e.Position)
			changed = true
		}
		if !changed {
			continue
		}
		row.Of = v.String()
		items = append(items, state.Item[Row[V]]{Key: entry.Key, Value: row, ETag: &entry.ETag})
	}
	if len(items) == 0 {
		return nil
	}
	results, err := k.Store.SaveBulk(ctx, items)
	if err != nil {
		return err
	}
	for _, r := range results {
		if errors.Is(r.Err, state.ErrConflict) { // which is for now: it is to be done again
			return fmt.Errorf("%w: row %s was changed by another follower: %w", state.ErrUnavailable, r.Key, r.Err)
		}
		if r.Err != nil {
			return r.Err
		}
	}
	return nil
}

// has reports whether an event is in a row. One that comes late is not, although later ones are.
func has[V any](row *Row[V], position int64, late bool) bool {
	if late {
		return slices.Contains(row.Late, position)
	}
	return position <= row.Position
}

// drop deletes the rows of all events: stores cannot list their keys.
func (k keyed[V]) drop(ctx context.Context, log *eventstore.Store, category string, v Version) error {
	events := log.ReadAll(ctx, eventstore.ReadOptions{})
	if category != "" {
		events = log.ReadCategory(ctx, category, eventstore.ReadOptions{})
	}
	keys := map[string]bool{}
	flush := func() error {
		list := make([]string, 0, len(keys))
		for key := range keys {
			list = append(list, key)
		}
		clear(keys)
		for part := range slices.Chunk(list, state.MaxBulkKeys) {
			results, err := k.Store.DeleteBulk(ctx, part)
			if err != nil {
				return err
			}
			for _, r := range results {
				if r.Err != nil && !errors.Is(r.Err, state.ErrNotFound) {
					return r.Err
				}
			}
		}
		return nil
	}
	for e, err := range events {
		if err != nil {
			return err
		}
		for _, key := range k.Keys(e) {
			keys[v.Key(key)] = true
		}
		if len(keys) >= state.MaxBulkKeys {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}
