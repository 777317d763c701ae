package statetest

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Compare-and-set is how services agree. It must neither pass with an ETag that is not the present one, nor change
// anything when it does not pass.
func saveOnCondition(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	_, err := store.TrySave(ctx, "k", jsontext.Value("0"), "1")
	require.ErrorIs(t, err, state.ErrConflict, "an absent key has no ETag")
	requireAbsent(t, store, "k")

	first, err := store.TrySave(ctx, "k", jsontext.Value("1"), "")
	require.NoError(t, err)
	_, err = store.TrySave(ctx, "k", jsontext.Value("2"), "")
	require.ErrorIs(t, err, state.ErrConflict, "an empty ETag means: only if absent")
	require.ErrorContains(t, err, store.Name())
	require.ErrorContains(t, err, `"k"`)

	second, err := store.TrySave(ctx, "k", jsontext.Value("3"), first)
	require.NoError(t, err)
	for _, wrong := range []string{first, "nonsense", "1", "0", "*", second + "x", " " + second, "'", "9223372036854775808", "🙂"} {
		_, err = store.TrySave(ctx, "k", jsontext.Value("4"), wrong)
		require.ErrorIs(t, err, state.ErrConflict, "ETag %q", wrong)
	}
	entry, err := store.GetWithETag(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, "3", string(entry.Value))
	require.Equal(t, second, entry.ETag, "a conflict changes nothing")
	s.requireVersion(t, 2, entry.Version)
}

// A conditional delete tells "somebody else changed it" from "it is gone": callers do different things then.
func deleteOnCondition(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	require.ErrorIs(t, store.TryDelete(ctx, "k", "1"), state.ErrNotFound)
	old := mustSave(t, store, "k", jsontext.Value("1"))
	present := mustSave(t, store, "k", jsontext.Value("1"))
	require.ErrorIs(t, store.TryDelete(ctx, "k", old), state.ErrConflict)
	requireValue(t, store, "k", "1")
	require.NoError(t, store.TryDelete(ctx, "k", present))
	requireAbsent(t, store, "k")
	require.ErrorIs(t, store.TryDelete(ctx, "k", present), state.ErrNotFound)
}

// An ETag that comes twice lets a slow writer overwrite what it has never seen (the ABA problem). Versions start again
// after a delete and after an expiry; ETags must not, and equal content must not make equal ETags.
func etagsNeverRepeat(t *testing.T, s *suite) {
	s.needs(t, FreshETags)
	ctx := t.Context()
	store := s.raw(t)
	seen := make(map[string]bool)
	note := func(etag string) {
		t.Helper()
		require.False(t, seen[etag], "ETag %q came before", etag)
		seen[etag] = true
	}
	for range 5 {
		for range 3 {
			note(mustSave(t, store, "k", jsontext.Value("1")))
		}
		_, err := store.Delete(ctx, "k")
		require.NoError(t, err)
	}
	for range 3 {
		saved, err := store.SaveWith(ctx, "k", jsontext.Value("1"), state.SaveOptions{Expiry: state.After(shortTTL)})
		require.NoError(t, err)
		note(saved.ETag)
		waitUntilGone(t, store, "k")
	}
}

// The same, as a caller meets it: an ETag from before a delete or an expiry is of no use afterwards.
func oldETagsStayOld(t *testing.T, s *suite) {
	s.needs(t, FreshETags)
	ctx := t.Context()
	store := s.raw(t)
	old := mustSave(t, store, "k", jsontext.Value("1"))
	_, err := store.Delete(ctx, "k")
	require.NoError(t, err)
	mustSave(t, store, "k", jsontext.Value("1"))
	_, err = store.TrySave(ctx, "k", jsontext.Value("2"), old)
	require.ErrorIs(t, err, state.ErrConflict)
	require.ErrorIs(t, store.TryDelete(ctx, "k", old), state.ErrConflict)

	saved, err := store.SaveWith(ctx, "e", jsontext.Value("1"), state.SaveOptions{Expiry: state.After(shortTTL)})
	require.NoError(t, err)
	waitUntilGone(t, store, "e")
	_, err = store.TrySave(ctx, "e", jsontext.Value("2"), saved.ETag)
	require.ErrorIs(t, err, state.ErrConflict, "an expired key has no ETag")
	mustSave(t, store, "e", jsontext.Value("1"))
	_, err = store.TrySave(ctx, "e", jsontext.Value("2"), saved.ETag)
	require.ErrorIs(t, err, state.ErrConflict)
}

// shortTTL is long enough to save and look, and short enough to wait for.
const shortTTL = 150 * time.Millisecond

func waitUntilGone(t *testing.T, s *state.Store[jsontext.Value], key string) {
	t.Helper()
	require.Eventually(t, func() bool {
		exists, err := s.Exists(t.Context(), key)
		return err == nil && !exists
	}, 10*time.Second, 5*time.Millisecond, "key %q does not expire", key)
}
