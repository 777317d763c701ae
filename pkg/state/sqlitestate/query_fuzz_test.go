package sqlitestate_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

// FuzzQuery looks for a filter, sort, field or cursor that breaks a statement: every query is answered or refused as invalid,
// says the same with an index and without, and leaves the store as it was. SQLite itself takes minutes to compile for it;
// -gcflags='modernc.org/...=-d=libfuzzer=0' leaves it out.
func FuzzQuery(f *testing.F) {
	for _, filter := range []string{`{}`, `{"a":1}`, `{"a":{"$in":["x",null,2]}}`, `{"a' OR '1'='1":{"$gte":"\\"}}`, `{"a.b":{"$startsWith":"\""}}`,
		`{"$not":{"a.0":{"$lt":9007199254740993}}}`, `{"a":{"$exists":false},"b":{"$contains":"%"}}`} {
		f.Add(filter, "a", "b.c", "")
	}
	f.Add(`{}`, `a"; DROP TABLE state_entries; --`, `$`, "AQAAAAA")
	d, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(f.TempDir(), "state.db")})
	require.NoError(f, err)
	factory, err := state.NewFactory([]state.StoreConfig{
		{Name: "plain", Backend: "sqlite", TableName: "plain"}, {Name: "indexed", Backend: "sqlite", TableName: "indexed", Indexes: []string{"a", "a.b", "b"}},
	}, []state.Driver{d}, state.Options{})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, factory.Close()) })
	values := map[string]any{
		"1": map[string]any{"a": 1, "b": "x"}, "2": map[string]any{"a": "x", "b": map[string]any{"c": nil}}, "3": map[string]any{"a": []any{1, "x", map[string]any{"b": true}}},
		"4": map[string]any{"a": map[string]any{"b": "%"}}, "5": map[string]any{"a": int64(9007199254740993)}, "6": []any{1}, "7": map[string]any{"b": false},
	}
	var stores []*state.QueryableStore[any]
	for _, name := range []string{"plain", "indexed"} {
		s, err := state.OpenQueryable[any](context.Background(), factory, name)
		require.NoError(f, err)
		for key, value := range values {
			_, err := s.Save(context.Background(), key, value)
			require.NoError(f, err)
		}
		stores = append(stores, s)
	}
	require.Eventually(f, func() bool { return len(stores[1].Indexed()) == 3 }, 10*time.Second, time.Millisecond)
	f.Fuzz(func(t *testing.T, text, field, second, cursor string) {
		filter, err := state.ParseFilter([]byte(text))
		if err != nil {
			return
		}
		q := state.Query{Filter: filter, Sort: []state.Sort{{Field: field}, {Field: second, Descending: true}}, Fields: []string{second}}
		var keys [2][]string
		for i, s := range stores {
			entries, err := s.Query(t.Context(), q)
			if err != nil {
				if !errors.Is(err, state.ErrInvalid) {
					t.Fatal(err)
				}
				return
			}
			for e, err := range s.All(t.Context(), q) {
				require.NoError(t, err)
				keys[i] = append(keys[i], e.Key)
			}
			require.Len(t, keys[i], len(entries))
			if _, err := s.QueryAfter(t.Context(), q, cursor, 3); err != nil && !errors.Is(err, state.ErrInvalid) {
				t.Fatal(err)
			}
			n, err := s.Len(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, len(values), n)
		}
		require.Equal(t, keys[0], keys[1])
	})
}
