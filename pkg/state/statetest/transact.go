package statetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

type op = state.Op[jsontext.Value]

// Changes that belong together are made together: creating, editing, deleting, with their expiries.
func transaction(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	edited := mustSave(t, store, "{t}edited", jsontext.Value("1"))
	mustSave(t, store, "{t}deleted", jsontext.Value("1"))
	removed := mustSave(t, store, "{t}removed", jsontext.Value("1"))
	two := jsontext.Value("2")
	created := etag("")
	conditional := []op{{Key: "{t}created", Value: two, ETag: created}, {Key: "{t}edited", Value: two, ETag: &edited}}
	if !s.keeps(Conditions) {
		_, err := store.Transact(ctx, conditional)
		require.ErrorIs(t, err, state.ErrUnsupported)
		requireAbsent(t, store, "{t}created")
		requireValue(t, store, "{t}edited", "1")
		created = nil
	}
	of := func(etag string) *string {
		if s.keeps(Conditions) {
			return &etag
		}
		return nil
	}
	results, err := store.Transact(ctx, []op{
		{Key: "{t}created", Value: two, ETag: created, Expiry: state.After(time.Hour)},
		{Key: "{t}edited", Value: two, ETag: of(edited)},
		{Key: "{t}deleted", Delete: true},
		{Key: "{t}removed", Delete: true, ETag: of(removed)},
		{Key: "{t}absent", Delete: true},
		{Key: "{t}any", Value: two},
	})
	require.NoError(t, err)
	require.Len(t, results, 6)
	for i, done := range []bool{true, true, true, true, false, true} {
		require.Equal(t, done, results[i].Done, results[i].Key)
		require.NoError(t, results[i].Err)
	}
	for _, i := range []int{0, 1, 5} {
		entry, err := store.GetWithETag(ctx, results[i].Key)
		require.NoError(t, err)
		require.Equal(t, "2", string(entry.Value))
		require.Equal(t, entry.ETag, results[i].ETag)
		require.Equal(t, entry.Version, results[i].Version)
	}
	s.requireExpiry(t, store, "{t}created", time.Hour)
	for _, key := range []string{"{t}deleted", "{t}removed", "{t}absent"} {
		requireAbsent(t, store, key)
	}

	// The largest one.
	ops := make([]op, state.MaxBulkKeys)
	for i := range ops {
		ops[i] = op{Key: fmt.Sprintf("{t}%d", i), Value: two, ETag: created}
	}
	_, err = store.Transact(ctx, ops)
	require.NoError(t, err)
	requireValue(t, store, "{t}999", "2")
}

// All or nothing, conditions included: one that fails undoes the rest, and the error names each key that failed.
func transactionConflicts(t *testing.T, s *suite) {
	s.needs(t, Conditions)
	ctx := t.Context()
	store := s.raw(t)
	old := mustSave(t, store, "{t}edited", jsontext.Value("1"))
	present := mustSave(t, store, "{t}edited", jsontext.Value("1"))
	mustSave(t, store, "{t}kept", jsontext.Value("1"))
	two := jsontext.Value("2")
	_, err := store.Transact(ctx, []op{
		{Key: "{t}first", Value: two},
		{Key: "{t}edited", Value: two, ETag: &old},
		{Key: "{t}kept", Delete: true},
		{Key: "{t}gone", Delete: true, ETag: etag("old")},
		{Key: "{t}last", Value: two, ETag: etag("")},
	})
	require.ErrorIs(t, err, state.ErrConflict)
	var conflict *state.ConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, store.Name(), conflict.Store)
	require.Equal(t, []string{"{t}edited", "{t}gone"}, conflict.Keys)
	requireAbsent(t, store, "{t}first")
	requireAbsent(t, store, "{t}last")
	requireValue(t, store, "{t}kept", "1")
	entry, err := store.GetWithETag(ctx, "{t}edited")
	require.NoError(t, err)
	require.Equal(t, present, entry.ETag)
	require.Equal(t, "1", string(entry.Value))
}

// What can never be right is refused before anything is done.
func transactionBadArguments(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	good := op{Key: "{t}good", Value: jsontext.Value("1")}
	for name, bad := range map[string]op{
		"same key":                   good,
		"not JSON":                   {Key: "{t}k", Value: jsontext.Value("{")},
		"bad key":                    {Key: "", Value: jsontext.Value("1")},
		"bad expiry":                 {Key: "{t}k", Value: jsontext.Value("1"), Expiry: state.After(-1)},
		"delete of what must not be": {Key: "{t}k", Delete: true, ETag: etag("")},
	} {
		_, err := store.Transact(ctx, []op{good, bad})
		require.ErrorIs(t, err, state.ErrInvalid, name)
	}
	requireAbsent(t, store, "{t}good")
}

// Where keys live on different servers a transaction over them cannot be, and says so instead of making half of it.
func transactionAnyKeys(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	_, err := store.Transact(ctx, []op{{Key: "one", Value: jsontext.Value("1")}, {Key: "other", Value: jsontext.Value("1")}})
	if s.features.AnyKeys {
		require.NoError(t, err)
		requireValue(t, store, "one", "1")
		requireValue(t, store, "other", "1")
		return
	}
	require.ErrorIs(t, err, state.ErrUnsupported)
	requireAbsent(t, store, "one")
	requireAbsent(t, store, "other")
	_, err = store.Transact(ctx, []op{{Key: "one", Value: jsontext.Value("1")}})
	require.NoError(t, err, "a single key needs no tag")
}
