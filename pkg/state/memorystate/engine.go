package memorystate

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// An engine is one store: a map, and a heap of the items that expire.
//
// An item is invisible from the instant of its expiry on. It is taken out of the map by the changes that follow: each
// removes up to evictions items, so more than are added cannot pile up, and no change pays for a large batch that
// expires at once.
type engine struct {
	driver *Driver
	store  string

	mu       sync.RWMutex
	items    map[string]*item
	expiring deadlines
}

// evictions is how many expired items one change removes at most. It must be more than one, the most it adds.
const evictions = 16

// An item is one key. Its value is never changed in place.
type item struct {
	key     string
	value   []byte
	etag    string
	version int64
	created time.Time
	updated time.Time
	expires time.Time // zero: never
	index   int       // in engine.expiring, -1 when it is not in there
}

func (i *item) expired(now time.Time) bool { return !i.expires.IsZero() && !now.Before(i.expires) }

// Get implements state.Engine.
func (e *engine) Get(ctx context.Context, keys []string) ([]state.Record, error) {
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	records := make([]state.Record, len(keys))
	now := time.Now()
	e.mu.RLock()
	for i, key := range keys {
		records[i].Key = key
		if it := e.live(key, now); it != nil {
			records[i] = it.record()
		}
	}
	e.mu.RUnlock()
	for i := range records {
		records[i].Value = bytes.Clone(records[i].Value) // the caller may write to it
	}
	return records, nil
}

// Exists implements state.Engine.
func (e *engine) Exists(ctx context.Context, keys []string) ([]bool, error) {
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	found := make([]bool, len(keys))
	now := time.Now()
	e.mu.RLock()
	defer e.mu.RUnlock()
	for i, key := range keys {
		found[i] = e.live(key, now) != nil
	}
	return found, nil
}

// Apply implements state.Engine.
func (e *engine) Apply(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	outcomes := make([]state.Outcome, len(changes))
	for i := range changes {
		e.mu.Lock()
		now := time.Now()
		if outcomes[i] = e.judge(&changes[i], now); !outcomes[i].Conflict {
			outcomes[i] = e.carryOut(&changes[i], now)
		}
		e.evict(now)
		e.mu.Unlock()
	}
	return outcomes, nil
}

// Transact implements state.Engine.
func (e *engine) Transact(ctx context.Context, changes []state.Change) ([]state.Outcome, error) {
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	outcomes := make([]state.Outcome, len(changes))
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	conflict := false
	for i := range changes {
		outcomes[i] = e.judge(&changes[i], now)
		conflict = conflict || outcomes[i].Conflict
	}
	if conflict {
		return outcomes, nil
	}
	for i := range changes {
		outcomes[i] = e.carryOut(&changes[i], now)
		e.evict(now)
	}
	return outcomes, nil
}

// Len implements state.Engine.
func (e *engine) Len(ctx context.Context) (int64, error) {
	if err := e.check(ctx); err != nil {
		return 0, err
	}
	now := time.Now()
	e.mu.RLock()
	defer e.mu.RUnlock()
	return int64(len(e.items) - e.expiring.countExpired(now)), nil
}

// judge reports whether the condition of a change holds.
func (e *engine) judge(c *state.Change, now time.Time) state.Outcome {
	it := e.live(c.Key, now)
	switch c.When {
	case state.IfAbsent:
		return state.Outcome{Conflict: it != nil}
	case state.IfETag:
		return state.Outcome{Conflict: it == nil || it.etag != c.ETag, Absent: it == nil}
	default:
		return state.Outcome{}
	}
}

// carryOut makes a change whose condition holds.
func (e *engine) carryOut(c *state.Change, now time.Time) state.Outcome {
	it := e.live(c.Key, now)
	if c.Delete {
		if it == nil {
			return state.Outcome{}
		}
		e.remove(it)
		return state.Outcome{Done: true}
	}
	if it == nil {
		if old := e.items[c.Key]; old != nil { // expired, and not yet evicted
			e.remove(old)
		}
		it = &item{key: c.Key, created: now, index: -1}
		e.items[c.Key] = it
	}
	it.value = bytes.Clone(c.Value)
	it.version++
	it.etag = e.driver.tags.next()
	it.updated = now
	if ttl, ok := c.Expiry.TTL(); ok {
		it.expires = now.Add(ttl)
	} else if c.Expiry == state.Never {
		it.expires = time.Time{}
	}
	e.expiring.schedule(it)
	return state.Outcome{Done: true, ETag: it.etag, Version: it.version}
}

// live returns the item of key unless it is absent or expired.
func (e *engine) live(key string, now time.Time) *item {
	it := e.items[key]
	if it == nil || it.expired(now) {
		return nil
	}
	return it
}

func (e *engine) remove(it *item) {
	delete(e.items, it.key)
	e.expiring.cancel(it)
}

// evict removes some of what has expired, the oldest first.
func (e *engine) evict(now time.Time) {
	for range evictions {
		it := e.expiring.first()
		if it == nil || !it.expired(now) {
			return
		}
		e.remove(it)
	}
}

func (e *engine) check(ctx context.Context) error {
	err := ctx.Err()
	if err == nil && e.driver.closed.Load() {
		err = errClosed()
	}
	if err != nil {
		return fmt.Errorf("state: store %q: %w", e.store, err)
	}
	return nil
}

func (i *item) record() state.Record {
	return state.Record{
		Key: i.key, Found: true, Value: i.value, ETag: i.etag, Version: i.version,
		CreatedAt: i.created.UTC(), UpdatedAt: i.updated.UTC(), ExpiresAt: utc(i.expires),
	}
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC()
}
