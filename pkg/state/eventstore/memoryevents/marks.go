package memoryevents

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// marks are those of all subscriptions of a log.
type marks struct {
	lock      sync.Mutex
	consumers map[string]map[string]time.Time // by subscription, until when each lives
	parts     map[partKey]*mark
	parked    map[string][]eventstore.Parked // by subscription
}

type partKey struct {
	name string
	part int
}

type mark struct {
	eventstore.Mark
	token int64
}

func newMarks() marks {
	return marks{consumers: map[string]map[string]time.Time{}, parts: map[partKey]*mark{}, parked: map[string][]eventstore.Parked{}}
}

func (m *marks) Transactional() bool { return false }

func (m *marks) Enlist(ctx context.Context, name, consumer string, lives time.Duration) (int, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.consumers[name] == nil {
		m.consumers[name] = map[string]time.Time{}
	}
	now := time.Now()
	for c, until := range m.consumers[name] {
		if until.Before(now) {
			delete(m.consumers[name], c)
		}
	}
	m.consumers[name][consumer] = now.Add(lives)
	return len(m.consumers[name]), ctx.Err()
}

func (m *marks) Retire(ctx context.Context, name, consumer string) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	delete(m.consumers[name], consumer)
	return ctx.Err()
}

func (m *marks) Claim(ctx context.Context, c eventstore.Claim) (eventstore.Lease, bool, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if err := ctx.Err(); err != nil {
		return eventstore.Lease{}, false, err
	}
	key, now := partKey{c.Name, c.Part}, time.Now()
	p := m.parts[key]
	if p == nil {
		p = &mark{Mark: eventstore.Mark{Part: c.Part, Parts: c.Parts, Position: c.From}}
		m.parts[key] = p
	}
	if p.Parts != c.Parts {
		return eventstore.Lease{}, false, fmt.Errorf("%w: the subscription has %d partitions, and not %d", state.ErrInvalid, p.Parts, c.Parts)
	}
	if p.Consumer != "" && p.Consumer != c.Consumer && now.Before(p.Until) {
		return eventstore.Lease{}, false, nil
	}
	p.token++
	p.Consumer, p.Until = c.Consumer, now.Add(c.Lives)
	return eventstore.Lease{Name: c.Name, Part: c.Part, Token: p.token, Position: p.Position, Lives: c.Lives}, true, nil
}

// held runs fn if the lease is still the last one.
func (m *marks) held(ctx context.Context, l eventstore.Lease, fn func(p *mark)) error {
	m.lock.Lock()
	defer m.lock.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	p := m.parts[partKey{l.Name, l.Part}]
	if p == nil || p.token != l.Token {
		return eventstore.ErrLeaseLost
	}
	p.Until = time.Now().Add(l.Lives)
	fn(p)
	return nil
}

func (m *marks) Renew(ctx context.Context, l eventstore.Lease) error {
	return m.held(ctx, l, func(*mark) {})
}

func (m *marks) Advance(ctx context.Context, l eventstore.Lease, to eventstore.Advance, within func(*sql.Tx) error) (err error) {
	if within != nil {
		return state.ErrUnsupported
	}
	held := m.held(ctx, l, func(p *mark) {
		if p.Position != to.Entered {
			err = eventstore.ErrLeaseLost
			return
		}
		p.Position = to.Position
	})
	return errors.Join(held, err)
}

func (m *marks) Yield(ctx context.Context, l eventstore.Lease) error {
	return m.held(ctx, l, func(p *mark) {
		p.token++
		p.Consumer, p.Until = "", time.Time{}
	})
}

func (m *marks) Marks(ctx context.Context, name string) (all []eventstore.Mark, err error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	for key, p := range m.parts {
		if key.name == name {
			all = append(all, p.Mark)
		}
	}
	slices.SortFunc(all, func(a, b eventstore.Mark) int { return a.Part - b.Part })
	return all, ctx.Err()
}

func (m *marks) find(name string, stream eventstore.StreamID) *eventstore.Parked {
	for i := range m.parked[name] {
		if m.parked[name][i].Stream == stream {
			return &m.parked[name][i]
		}
	}
	return nil
}

func (m *marks) Park(ctx context.Context, l eventstore.Lease, p eventstore.Parked) error {
	return m.held(ctx, l, func(*mark) {
		p.At = time.Now().UTC()
		if there := m.find(l.Name, p.Stream); there != nil {
			p.At = there.At
			*there = p
			return
		}
		m.parked[l.Name] = append(m.parked[l.Name], p)
	})
}

func (m *marks) Parked(ctx context.Context, name string) ([]eventstore.Parked, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	return slices.Clone(m.parked[name]), ctx.Err()
}

func (m *marks) Unpark(ctx context.Context, name string, stream eventstore.StreamID, skip bool) (bool, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	p := m.find(name, stream)
	if p == nil {
		return false, ctx.Err()
	}
	if skip && !p.Released {
		p.Version++
	}
	p.Released = true
	return true, ctx.Err()
}

func (m *marks) Replayed(ctx context.Context, l eventstore.Lease, stream eventstore.StreamID, next int64, done bool, within func(*sql.Tx) error) error {
	if within != nil {
		return state.ErrUnsupported
	}
	return m.held(ctx, l, func(*mark) {
		if done {
			m.parked[l.Name] = slices.DeleteFunc(m.parked[l.Name], func(p eventstore.Parked) bool { return p.Stream == stream })
		} else if p := m.find(l.Name, stream); p != nil {
			p.Version = next
		}
	})
}
