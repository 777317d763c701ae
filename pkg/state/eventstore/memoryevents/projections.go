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

func (s *step) Position(ctx context.Context, subscription string) (position int64, begun bool, err error) {
	position, begun = s.placeOf(subscription)
	return position, begun, ctx.Err()
}

func (s *step) Seize(ctx context.Context, subscription string, position int64) error {
	p, before := s.seize(subscription, position)
	if s.before == nil {
		s.before = map[*mark]int64{}
	}
	if _, changed := s.before[p]; !changed {
		s.before[p] = before
	}
	return ctx.Err()
}

func (s *step) Parked(ctx context.Context, subscription string) (int, error) {
	parked, err := s.marks.Parked(ctx, subscription)
	return len(parked), err
}

func (s *step) Forget(ctx context.Context, subscription string) error {
	s.drop(subscription)
	return ctx.Err()
}

// undo sets positions back.
func (s *step) undo() { s.setBack(s.before) }

func (m *marks) placeOf(subscription string) (position int64, begun bool) {
	m.lock.Lock()
	defer m.lock.Unlock()
	p := m.parts[partKey{name: subscription}]
	if p == nil {
		return 0, false
	}
	return p.Position, true
}

func (m *marks) seize(subscription string, position int64) (p *mark, before int64) {
	m.lock.Lock()
	defer m.lock.Unlock()
	key := partKey{name: subscription}
	if p = m.parts[key]; p == nil {
		p = &mark{}
		m.parts[key] = p
	}
	before = p.Position
	p.token++
	p.Mark = eventstore.Mark{Parts: 1, Position: position}
	return p, before
}

func (m *marks) setBack(positions map[*mark]int64) {
	m.lock.Lock()
	defer m.lock.Unlock()
	for p, position := range positions {
		p.Position = position
	}
}

func (m *marks) drop(subscription string) {
	m.lock.Lock()
	defer m.lock.Unlock()
	maps.DeleteFunc(m.parts, func(key partKey, _ *mark) bool { return key.name == subscription })
	delete(m.parked, subscription)
	delete(m.consumers, subscription)
}
