package memoryevents

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

func (m *engine) Projections(ctx context.Context, name string) (map[string][]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if name == "" {
		return maps.Clone(m.projections), ctx.Err()
	}
	entries := map[string][]byte{}
	if entry, ok := m.projections[name]; ok {
		entries[name] = entry
	}
	return entries, ctx.Err()
}

// ChangeProjection is made on condition that nobody appends meanwhile.
func (m *engine) ChangeProjection(ctx context.Context, name string, fn func(w eventstore.Within, current []byte) ([]byte, error)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	s := &step{engine: m}
	changed, err := fn(s, m.projections[name])
	if err != nil {
		s.undo()
		return err
	}
	if changed == nil {
		delete(m.projections, name)
	} else {
		m.projections[name] = slices.Clone(changed)
	}
	return nil
}

func (m *engine) Inline(fn func(ctx context.Context, w eventstore.Within) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inline = fn
}

func (m *engine) Within(*sql.Tx) eventstore.Within { return nil } // Advance takes no function

func (m *engine) Define(context.Context, ...string) error {
	return fmt.Errorf("%w: there are no tables in memory", state.ErrUnsupported)
}

// A step is one of an engine whose lock is held.
type step struct {
	*engine
	before map[*mark]int64 // positions that it has changed
}

// undo sets positions back.
func (s *step) undo() {
	s.marks.lock.Lock()
	defer s.marks.lock.Unlock()
	for p, position := range s.before {
		p.Position = position
	}
}

func (s *step) Tx() *sql.Tx { return nil }

func (s *step) Projection(ctx context.Context, name string) ([]byte, error) {
	return s.projections[name], ctx.Err()
}

func (s *step) Read(ctx context.Context, r eventstore.Range) ([]eventstore.Recorded, bool, error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	events, more := s.read(r)
	return events, more, nil
}

func (s *step) Position(ctx context.Context, subscription string) (int64, bool, error) {
	s.marks.lock.Lock()
	defer s.marks.lock.Unlock()
	p := s.parts[partKey{name: subscription}]
	if p == nil {
		return 0, false, ctx.Err()
	}
	return p.Position, true, ctx.Err()
}

func (s *step) Seize(ctx context.Context, subscription string, position int64) error {
	s.marks.lock.Lock()
	defer s.marks.lock.Unlock()
	key := partKey{name: subscription}
	p := s.parts[key]
	if p == nil {
		p = &mark{}
		s.parts[key] = p
	}
	if s.before == nil {
		s.before = map[*mark]int64{}
	}
	if _, changed := s.before[p]; !changed {
		s.before[p] = p.Position
	}
	p.token++
	p.Mark = eventstore.Mark{Parts: 1, Position: position}
	return ctx.Err()
}

func (s *step) Parked(ctx context.Context, subscription string) (int, error) {
	s.marks.lock.Lock()
	defer s.marks.lock.Unlock()
	return len(s.parked[subscription]), ctx.Err()
}

func (s *step) Forget(ctx context.Context, subscription string) error {
	s.marks.lock.Lock()
	defer s.marks.lock.Unlock()
	maps.DeleteFunc(s.parts, func(key partKey, _ *mark) bool { return key.name == subscription })
	delete(s.parked, subscription)
	delete(s.consumers, subscription)
	return ctx.Err()
}
