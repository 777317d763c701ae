package membership

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// The stores that Table keeps the mesh's records in. They are internal: the state service neither lists nor opens them.
const (
	ServiceStore = "mesh-service" // keys service:*
	ConfigStore  = "mesh-config"  // keys config:*
)

// Stores configures the stores of Table. Records of instances expire within minutes and may be kept where they are lost
// on a restart; the configuration should last.
func Stores(serviceBackend, configBackend string) []state.StoreConfig {
	return []state.StoreConfig{
		{Name: ServiceStore, Backend: serviceBackend, KeyPrefix: "service"},
		{Name: ConfigStore, Backend: configBackend, KeyPrefix: "config"},
	}
}

// A Table keeps the mesh's records in the state layer. The first part of a key chooses the store, whose prefix it is, so
// that on Redis keys are as the contract has them.
type Table struct {
	factory *state.Factory
}

// NewTable returns a table over a factory that has the stores of Stores.
func NewTable(f *state.Factory) (*Table, error) {
	for _, name := range []string{ServiceStore, ConfigStore} {
		if !f.Has(name) {
			return nil, fmt.Errorf("membership: the factory has no store %q; add those of membership.Stores", name)
		}
	}
	return &Table{factory: f}, nil
}

var _ mesh.Table = (*Table)(nil)

// store opens the store that a key belongs to, and returns the key's name in it.
func (t *Table) store(ctx context.Context, key string) (*state.Store[jsontext.Value], string, error) {
	prefix, rest, _ := strings.Cut(key, ":")
	var name string
	switch prefix {
	case "service":
		name = ServiceStore
	case "config":
		name = ConfigStore
	default:
		return nil, "", fmt.Errorf("membership: key %q begins neither with \"service:\" nor with \"config:\"", key)
	}
	s, err := state.Open[jsontext.Value](ctx, t.factory, name)
	if err != nil {
		return nil, "", translate(err)
	}
	return s, rest, nil
}

// Get implements mesh.Table.
func (t *Table) Get(ctx context.Context, key string) (value []byte, etag string, err error) {
	s, name, err := t.store(ctx, key)
	if err != nil {
		return nil, "", err
	}
	entry, err := s.GetWithETag(ctx, name)
	if err != nil {
		return nil, "", translate(err)
	}
	return entry.Value, entry.ETag, nil
}

// GetMany implements mesh.Table, with one round trip for each thousand keys of a store.
func (t *Table) GetMany(ctx context.Context, keys []string) ([][]byte, error) {
	values := make([][]byte, len(keys))
	places := map[*state.Store[jsontext.Value]][]int{}
	names := make([]string, len(keys))
	opened := map[string]*state.Store[jsontext.Value]{}
	for i, key := range keys {
		s, name, err := t.store(ctx, key)
		if err != nil {
			return nil, err
		}
		if known, ok := opened[s.Name()]; ok {
			s = known
		}
		opened[s.Name()] = s
		names[i] = name
		places[s] = append(places[s], i)
	}
	for s, where := range places {
		for len(where) > 0 {
			n := min(len(where), state.MaxBulkKeys)
			if err := read(ctx, s, names, where[:n], values); err != nil {
				return nil, err
			}
			where = where[n:]
		}
	}
	return values, nil
}

func read(ctx context.Context, s *state.Store[jsontext.Value], names []string, where []int, values [][]byte) error {
	keys := make([]string, len(where))
	for i, place := range where {
		keys[i] = names[place]
	}
	entries, err := s.GetBulk(ctx, keys)
	if err != nil {
		return translate(err)
	}
	for i, entry := range entries {
		if entry.Found {
			values[where[i]] = entry.Value
		}
	}
	return nil
}

// Put implements mesh.Table.
func (t *Table) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	s, name, err := t.store(ctx, key)
	if err != nil {
		return err
	}
	_, err = s.SaveWith(ctx, name, value, state.SaveOptions{Expiry: expiry(ttl)})
	return translate(err)
}

// TryPut implements mesh.Table.
func (t *Table) TryPut(ctx context.Context, key string, value []byte, etag string, ttl time.Duration) error {
	s, name, err := t.store(ctx, key)
	if err != nil {
		return err
	}
	_, err = s.TrySaveWith(ctx, name, value, etag, state.SaveOptions{Expiry: expiry(ttl)})
	return translate(err)
}

// Delete implements mesh.Table.
func (t *Table) Delete(ctx context.Context, key string) error {
	s, name, err := t.store(ctx, key)
	if err != nil {
		return err
	}
	_, err = s.Delete(ctx, name)
	return translate(err)
}

// TryDelete implements mesh.Table.
func (t *Table) TryDelete(ctx context.Context, key, etag string) error {
	s, name, err := t.store(ctx, key)
	if err != nil {
		return err
	}
	return translate(s.TryDelete(ctx, name, etag))
}

func expiry(ttl time.Duration) state.Expiry {
	if ttl == 0 {
		return state.Never
	}
	return state.After(ttl)
}

// translate gives an error of the state layer the sentinel that the mesh looks for, beside its own.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, state.ErrNotFound):
		return fmt.Errorf("%w: %w", mesh.ErrNotFound, err)
	case errors.Is(err, state.ErrConflict):
		return fmt.Errorf("%w: %w", mesh.ErrConflict, err)
	case errors.Is(err, state.ErrUnavailable), errors.Is(err, state.ErrOutcomeUnknown):
		return fmt.Errorf("%w: %w", mesh.ErrUnavailable, err)
	default:
		return err
	}
}
