// Package memoryevents keeps a log of events in memory, for tests and for what may be lost with its process.
package memoryevents

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/internal/sequence"
)

// New returns an empty log.
func New(cfg eventstore.Config) *eventstore.Store {
	return eventstore.New(&engine{
		versions: map[eventstore.StreamID][]int64{}, categories: map[string][]int64{}, known: map[string]sequence.Place{},
		snapshots: map[snapshotKey]eventstore.Snapshot{}, projections: map[string][]byte{}, archived: map[eventstore.StreamID]int64{}, marks: newMarks(),
		keys: keys{bySubject: map[string]eventstore.SubjectKey{}},
	}, cfg)
}

// An engine is one log. Events are never changed, so that readers share them.
type engine struct {
	mu         sync.RWMutex
	events     []eventstore.Recorded           // by position, from 1
	versions   map[eventstore.StreamID][]int64 // positions by version, from 1
	categories map[string][]int64              // positions
	known      map[string]sequence.Place       // by id

	snapshots map[snapshotKey]eventstore.Snapshot

	projections map[string][]byte                                    // entries by name
	inline      func(ctx context.Context, w eventstore.Within) error // called in each append

	archived map[eventstore.StreamID]int64 // below which version
	marks
	keys
}

type snapshotKey struct {
	stream eventstore.StreamID
	schema int
}

func (m *engine) Append(ctx context.Context, appends []eventstore.Append) ([]eventstore.Appended, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	end := sequence.End{Position: int64(len(m.events)), Versions: map[eventstore.StreamID]int64{}, Known: m.known, Looked: true}
	for _, a := range appends {
		list := m.versions[a.Stream]
		end.Versions[a.Stream] = int64(len(list))
		if n := len(list); n > 0 && m.events[list[n-1]-1].Type == eventstore.ClosedType {
			end.Versions[a.Stream] *= -1
		}
	}
	appended, rows, err := end.Add(appends)
	now := time.Now().UTC().Truncate(time.Microsecond)
	for _, r := range rows {
		r.RecordedAt = now
		m.events = append(m.events, r)
		m.versions[r.Stream] = append(m.versions[r.Stream], r.Position)
		m.categories[r.Stream.Category] = append(m.categories[r.Stream.Category], r.Position)
	}
	if m.inline != nil && len(rows) > 0 {
		s := &step{engine: m}
		if err := m.inline(ctx, s); err != nil {
			s.undo()
			m.takeBack(len(rows))
			return nil, err
		}
	}
	return appended, err
}

// takeBack removes the last events, which nobody has seen.
func (m *engine) takeBack(n int) {
	kept := len(m.events) - n
	for _, e := range slices.Backward(m.events[kept:]) {
		delete(m.known, e.ID)
		if m.versions[e.Stream] = m.versions[e.Stream][:e.Version-1]; e.Version == 1 {
			delete(m.versions, e.Stream)
		}
		list := m.categories[e.Stream.Category]
		m.categories[e.Stream.Category] = list[:len(list)-1]
	}
	m.events = m.events[:kept]
}

func (m *engine) Head(ctx context.Context) (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return int64(len(m.events)), ctx.Err()
}

func (m *engine) Read(ctx context.Context, r eventstore.Range) ([]eventstore.Recorded, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	events, more := m.read(r)
	return events, more, nil
}

// read is Read with the lock held.
func (m *engine) read(r eventstore.Range) ([]eventstore.Recorded, bool) {
	var count int          // of events of the range's kind
	var at func(int) int64 // the position of one of them
	var begin func() int   // the first that is not below From
	switch {
	case r.ID != "":
		list := m.versions[eventstore.StreamID{Category: r.Category, ID: r.ID}]
		count, at = len(list), func(i int) int64 { return list[i] }
		begin = func() int { return int(min(max(r.From, 1)-1, int64(count))) }
	case r.Category != "":
		list := m.categories[r.Category]
		count, at = len(list), func(i int) int64 { return list[i] }
		begin = func() int { i, _ := slices.BinarySearch(list, r.From); return i }
	default:
		count, at = len(m.events), func(i int) int64 { return int64(i) + 1 }
		begin = func() int { return int(min(max(r.From, 1)-1, int64(count))) }
	}
	var found []eventstore.Recorded
	take := func(i int) {
		e := m.events[at(i)-1]
		e.Data = slices.Clone(e.Data)
		found = append(found, e)
	}
	if !r.Backward {
		i := begin()
		for ; i < count && len(found) < r.Limit; i++ {
			take(i)
		}
		return found, i < count
	}
	i := count - 1
	if r.From > 0 {
		r.From++ // the first above it
		i = begin() - 1
	}
	for ; i >= 0 && len(found) < r.Limit; i-- {
		take(i)
	}
	return found, i >= 0
}

// Archive has nowhere to move anything to: it remembers that it was asked.
func (m *engine) Archive(ctx context.Context, stream eventstore.StreamID, below int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	moved := max(below-1-m.archived[stream], 0)
	m.archived[stream] += moved
	return moved, nil
}

func (m *engine) Streams(ctx context.Context, category, after string, limit int) ([]eventstore.StreamVersion, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var all []eventstore.StreamVersion
	for id, list := range m.versions {
		if id.Category == category && id.ID > after {
			all = append(all, eventstore.StreamVersion{Stream: id, Version: int64(len(list))})
		}
	}
	slices.SortFunc(all, func(a, b eventstore.StreamVersion) int { return strings.Compare(a.Stream.ID, b.Stream.ID) })
	return all[:min(limit, len(all))], ctx.Err()
}

func (m *engine) SaveSnapshot(ctx context.Context, s eventstore.Snapshot) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := snapshotKey{s.Stream, s.Schema}
	if there, ok := m.snapshots[key]; !ok || there.Version < s.Version {
		m.snapshots[key] = s
	}
	return ctx.Err()
}

func (m *engine) LoadSnapshot(ctx context.Context, stream eventstore.StreamID, schema int) (eventstore.Snapshot, bool, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s, found := m.snapshots[snapshotKey{stream, schema}]
	return s, found, ctx.Err()
}

func (m *engine) Restore(ctx context.Context, stream eventstore.StreamID, schema, limit int) (s eventstore.Snapshot, found bool, events []eventstore.Recorded, more bool, err error) {
	s, found, err = m.LoadSnapshot(ctx, stream, schema)
	if err != nil || !found {
		return eventstore.Snapshot{}, false, nil, false, err
	}
	events, more, err = m.Read(ctx, eventstore.Range{Category: stream.Category, ID: stream.ID, From: s.Version, Limit: limit + 1})
	if err != nil || len(events) == 0 || events[0].ID != s.EventID {
		return eventstore.Snapshot{}, false, nil, false, err
	}
	return s, true, events, more, nil
}
