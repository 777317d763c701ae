package statetest

import (
	"fmt"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

func bulkKey(i int) string { return fmt.Sprintf("key-%04d", i) }

// Callers match answers to questions by position. The largest call works, with absent keys and repeated ones between.
func bulkReadInOrder(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	var items []state.Item[jsontext.Value]
	keys := make([]string, state.MaxBulkKeys)
	for i := range keys {
		keys[i] = bulkKey(len(keys) - i)
		if i%3 != 0 {
			items = append(items, state.Item[jsontext.Value]{Key: keys[i], Value: jsontext.Value(fmt.Sprint(i))})
		}
	}
	keys[10] = keys[11]
	results, err := store.SaveBulk(ctx, items)
	require.NoError(t, err)
	require.Len(t, results, len(items))
	for i, r := range results {
		require.NoError(t, r.Err)
		require.Equal(t, items[i].Key, r.Key)
		require.True(t, r.Done)
		require.NotEmpty(t, r.ETag)
		s.requireVersion(t, 1, r.Version)
	}

	entries, err := store.GetBulk(ctx, keys)
	require.NoError(t, err)
	exists, err := store.ExistsBulk(ctx, keys)
	require.NoError(t, err)
	require.Len(t, entries, len(keys))
	require.Len(t, exists, len(keys))
	for i, e := range entries {
		want := i
		if i == 10 {
			want = 11
		}
		require.Equal(t, keys[i], e.Key)
		require.Equal(t, want%3 != 0, e.Found, "key %d", i)
		require.Equal(t, want%3 != 0, exists[i], "key %d", i)
		if e.Found {
			require.Equal(t, fmt.Sprint(want), string(e.Value))
		}
	}

	deleted, err := store.DeleteBulk(ctx, append([]string{"absent"}, items[0].Key, items[1].Key))
	require.NoError(t, err)
	require.Equal(t, []bool{false, true, true}, []bool{deleted[0].Done, deleted[1].Done, deleted[2].Done})
	requireAbsent(t, store, items[0].Key)
	requireAbsent(t, store, items[1].Key)
}

// The changes of a bulk call stand alone: the conflict of one is its own and does not undo or prevent the others.
func bulkChangesStandAlone(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	first := mustSave(t, store, "edited", jsontext.Value("1"))
	mustSave(t, store, "taken", jsontext.Value("1"))
	two := jsontext.Value("2")
	results, err := store.SaveBulk(ctx, []state.Item[jsontext.Value]{
		{Key: "taken", Value: two, ETag: etag("")},
		{Key: "edited", Value: two, ETag: &first},
		{Key: "gone", Value: two, ETag: etag("old")},
		{Key: "new", Value: two, ETag: etag("")},
		{Key: "any", Value: two},
	})
	require.NoError(t, err)
	for i, fails := range []bool{true, false, true, false, false} {
		require.Equal(t, !fails, results[i].Done, results[i].Key)
		if fails {
			require.ErrorIs(t, results[i].Err, state.ErrConflict)
			require.ErrorContains(t, results[i].Err, results[i].Key)
			require.Empty(t, results[i].ETag)
		} else {
			require.NoError(t, results[i].Err)
			entry, err := store.GetWithETag(ctx, results[i].Key)
			require.NoError(t, err)
			require.Equal(t, "2", string(entry.Value))
			require.Equal(t, entry.ETag, results[i].ETag)
			require.Equal(t, entry.Version, results[i].Version)
		}
	}
	requireValue(t, store, "taken", "1")
	requireAbsent(t, store, "gone")

	_, err = store.SaveBulk(ctx, []state.Item[jsontext.Value]{{Key: "twice", Value: two}, {Key: "twice", Value: two}})
	require.ErrorIs(t, err, state.ErrInvalid)
	_, err = store.DeleteBulk(ctx, []string{"any", "any"})
	require.ErrorIs(t, err, state.ErrInvalid)
	requireAbsent(t, store, "twice")
	requireValue(t, store, "any", "2")
}

// Callers pass what they have, which may be nothing.
func bulkOfNothing(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	entries, err := store.GetBulk(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, entries)
	exists, err := store.ExistsBulk(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, exists)
	results, err := store.SaveBulk(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, results)
	results, err = store.DeleteBulk(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, results)
	results, err = store.Transact(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, results)
}
