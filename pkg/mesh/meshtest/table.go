package meshtest

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// A Table is a mesh.Table in memory, for tests. The zero value is not usable: call NewTable.
type Table struct {
	mu     sync.Mutex
	rows   map[string]row
	etags  uint64
	failed error
}

type row struct {
	value   []byte
	etag    string
	expires time.Time // zero: never
}

// NewTable returns an empty table.
func NewTable() *Table { return &Table{rows: map[string]row{}} }

// Fail makes every call return err until it is called with nil.
func (t *Table) Fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = err
}

// Get implements mesh.Table.
func (t *Table) Get(ctx context.Context, key string) ([]byte, string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.usable(ctx); err != nil {
		return nil, "", err
	}
	r, ok := t.live(key)
	if !ok {
		return nil, "", fmt.Errorf("%s: %w", key, mesh.ErrNotFound)
	}
	return bytes.Clone(r.value), r.etag, nil
}

// GetMany implements mesh.Table.
func (t *Table) GetMany(ctx context.Context, keys []string) ([][]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.usable(ctx); err != nil {
		return nil, err
	}
	values := make([][]byte, len(keys))
	for i, key := range keys {
		if r, ok := t.live(key); ok {
			values[i] = bytes.Clone(r.value)
		}
	}
	return values, nil
}

// Put implements mesh.Table.
func (t *Table) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.usable(ctx); err != nil {
		return err
	}
	t.store(key, value, ttl)
	return nil
}

// TryPut implements mesh.Table.
func (t *Table) TryPut(ctx context.Context, key string, value []byte, etag string, ttl time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.usable(ctx); err != nil {
		return err
	}
	if r, _ := t.live(key); r.etag != etag {
		return fmt.Errorf("%s: %w", key, mesh.ErrConflict)
	}
	t.store(key, value, ttl)
	return nil
}

// Delete implements mesh.Table.
func (t *Table) Delete(ctx context.Context, key string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.usable(ctx); err != nil {
		return err
	}
	delete(t.rows, key)
	return nil
}

// TryDelete implements mesh.Table.
func (t *Table) TryDelete(ctx context.Context, key, etag string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.usable(ctx); err != nil {
		return err
	}
	r, ok := t.live(key)
	switch {
	case !ok:
		return fmt.Errorf("%s: %w", key, mesh.ErrNotFound)
	case r.etag != etag:
		return fmt.Errorf("%s: %w", key, mesh.ErrConflict)
	}
	delete(t.rows, key)
	return nil
}

func (t *Table) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return t.failed
}

func (t *Table) live(key string) (row, bool) {
	r, ok := t.rows[key]
	if ok && !r.expires.IsZero() && !time.Now().Before(r.expires) {
		delete(t.rows, key)
		return row{}, false
	}
	return r, ok
}

func (t *Table) store(key string, value []byte, ttl time.Duration) {
	t.etags++
	r := row{value: bytes.Clone(value), etag: strconv.FormatUint(t.etags, 10)}
	if ttl > 0 {
		r.expires = time.Now().Add(ttl)
	}
	t.rows[key] = r
}
