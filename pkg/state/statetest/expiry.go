package statetest

import (
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// requireExpiry checks when a key expires; a ttl of 0 means never.
func (s *suite) requireExpiry(t *testing.T, store *state.Store[jsontext.Value], key string, ttl time.Duration) {
	t.Helper()
	entry, err := store.GetWithETag(t.Context(), key)
	require.NoError(t, err)
	if !s.keeps(ExpiryTold) {
		return
	}
	if ttl == 0 {
		require.True(t, entry.ExpiresAt.IsZero(), "never expires, but says %v", entry.ExpiresAt)
		return
	}
	const tolerance = 10 * time.Second // the server's clock, and a slow machine
	require.WithinDuration(t, time.Now().Add(ttl), entry.ExpiresAt, tolerance)
}

// Sessions live and die by this: a save that drops the expiry keeps a session for ever, one that shortens it logs people
// out. Every kind of save does exactly what is asked, conditional ones too.
func expirySetKeptCleared(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	v := jsontext.Value("1")
	steps := []struct {
		ask  state.Expiry
		want time.Duration
	}{
		{0, 0}, // a new key, no default: never
		{state.After(time.Hour), time.Hour},
		{0, time.Hour},
		{state.Keep, time.Hour},
		{state.After(2 * time.Hour), 2 * time.Hour},
		{state.After(time.Minute), time.Minute},
		{state.Never, 0},
		{state.Keep, 0},
		{state.After(time.Hour), time.Hour},
	}
	saves := map[string]func(key string, o state.SaveOptions) error{
		"save": func(key string, o state.SaveOptions) error {
			_, err := store.SaveWith(ctx, key, v, o)
			return err
		},
		"try save": func(key string, o state.SaveOptions) error {
			entry, err := store.GetBulk(ctx, []string{key})
			require.NoError(t, err)
			_, err = store.TrySaveWith(ctx, key, v, entry[0].ETag, o)
			return err
		},
		"bulk": func(key string, o state.SaveOptions) error {
			_, err := store.SaveBulk(ctx, []state.Item[jsontext.Value]{{Key: key, Value: v, Expiry: o.Expiry}})
			return err
		},
		"transact": func(key string, o state.SaveOptions) error {
			_, err := store.Transact(ctx, []state.Op[jsontext.Value]{{Key: key, Value: v, Expiry: o.Expiry}})
			return err
		},
	}
	for key, save := range saves {
		for i, step := range steps {
			require.NoError(t, save(key, state.SaveOptions{Expiry: step.ask}), "%s, step %d", key, i)
			s.requireExpiry(t, store, key, step.want)
		}
	}

	// A conflict leaves the expiry alone.
	_, err := store.TrySaveWith(ctx, "save", v, "other", state.SaveOptions{Expiry: state.Never})
	require.ErrorIs(t, err, state.ErrConflict)
	s.requireExpiry(t, store, "save", time.Hour)

	// A new key has nothing of the one that was deleted.
	_, err = store.Delete(ctx, "save")
	require.NoError(t, err)
	_, err = store.SaveWith(ctx, "save", v, state.SaveOptions{Expiry: state.Keep})
	require.NoError(t, err)
	s.requireExpiry(t, store, "save", 0)
}

// A store with a default TTL renews it with every save that does not say otherwise.
func defaultExpiry(t *testing.T, s *suite) {
	ctx := t.Context()
	store := openStore[jsontext.Value](t, s, state.StoreConfig{Name: newName(), DefaultTTL: time.Hour})
	v := jsontext.Value("1")
	etag := mustSave(t, store, "k", v)
	s.requireExpiry(t, store, "k", time.Hour)
	_, err := store.TrySaveWith(ctx, "k", v, etag, state.SaveOptions{Expiry: state.After(time.Minute)})
	require.NoError(t, err)
	_, err = store.SaveWith(ctx, "k", v, state.SaveOptions{Expiry: state.Keep})
	require.NoError(t, err)
	s.requireExpiry(t, store, "k", time.Minute)
	mustSave(t, store, "k", v)
	s.requireExpiry(t, store, "k", time.Hour)
	_, err = store.SaveWith(ctx, "k", v, state.SaveOptions{Expiry: state.Never})
	require.NoError(t, err)
	s.requireExpiry(t, store, "k", 0)
	_, err = store.SaveBulk(ctx, []state.Item[jsontext.Value]{{Key: "b", Value: v}})
	require.NoError(t, err)
	s.requireExpiry(t, store, "b", time.Hour)
}

// An expired key is gone for every method at the same instant, whether or not the engine has removed it yet.
func expiredIsGone(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	v := jsontext.Value("1")
	short := state.SaveOptions{Expiry: state.After(shortTTL)}
	start := time.Now()
	saved, err := store.SaveWith(ctx, "k", v, short)
	require.NoError(t, err)
	_, err = store.SaveWith(ctx, "stays", v, state.SaveOptions{Expiry: state.After(time.Hour)})
	require.NoError(t, err)

	waitUntilGone(t, store, "k")
	require.GreaterOrEqual(t, time.Since(start), shortTTL-10*time.Millisecond, "it went too early")
	requireAbsent(t, store, "k")
	s.requireLen(t, store, 1, "an expired key is not counted")
	deleted, err := store.Delete(ctx, "k")
	require.NoError(t, err)
	require.False(t, deleted, "there is nothing to delete")
	require.ErrorIs(t, store.TryDelete(ctx, "k", saved.ETag), state.ErrNotFound)
	requireValue(t, store, "stays", "1")
}

// A key that is saved again after its expiry is a new one: creatable, version 1, without the old expiry.
func expiredStartsAnew(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	for _, key := range []string{"save", "create", "bulk", "transact"} {
		for range 2 {
			_, err := store.SaveWith(ctx, key, jsontext.Value("1"), state.SaveOptions{Expiry: state.After(shortTTL)})
			require.NoError(t, err)
		}
	}
	for _, key := range []string{"save", "create", "bulk", "transact"} {
		waitUntilGone(t, store, key)
	}
	keep := state.SaveOptions{Expiry: state.Keep}
	_, err := store.SaveWith(ctx, "save", jsontext.Value("2"), keep)
	require.NoError(t, err)
	_, err = store.TrySaveWith(ctx, "create", jsontext.Value("2"), "", keep)
	require.NoError(t, err)
	_, err = store.SaveBulk(ctx, []state.Item[jsontext.Value]{{Key: "bulk", Value: jsontext.Value("2"), Expiry: state.Keep}})
	require.NoError(t, err)
	_, err = store.Transact(ctx, []state.Op[jsontext.Value]{{Key: "transact", Value: jsontext.Value("2"), ETag: etag(""), Expiry: state.Keep}})
	require.NoError(t, err)
	for _, key := range []string{"save", "create", "bulk", "transact"} {
		s.requireExpiry(t, store, key, 0)
		entry, err := store.GetWithETag(ctx, key)
		require.NoError(t, err)
		s.requireVersion(t, 1, entry.Version, key)
	}
}
