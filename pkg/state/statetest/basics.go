package statetest

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// What everything else builds on. An absent key is ErrNotFound and nothing else, since callers create on it.
func saveReadDelete(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	requireAbsent(t, store, "k")

	etag := mustSave(t, store, "k", jsontext.Value(`{"a":1}`))
	requireValue(t, store, "k", `{"a":1}`)
	entry, err := store.GetWithETag(ctx, "k")
	require.NoError(t, err)
	require.True(t, entry.Found)
	require.Equal(t, "k", entry.Key)
	require.Equal(t, etag, entry.ETag, "Save returns the ETag that a read returns")
	exists, err := store.Exists(ctx, "k")
	require.NoError(t, err)
	require.True(t, exists)

	mustSave(t, store, "k", jsontext.Value(`"other"`))
	requireValue(t, store, "k", `"other"`)

	deleted, err := store.Delete(ctx, "k")
	require.NoError(t, err)
	require.True(t, deleted)
	requireAbsent(t, store, "k")
	deleted, err = store.Delete(ctx, "k")
	require.NoError(t, err, "deleting what is not there is no error")
	require.False(t, deleted)
}

// Versions and times are shown to people and used for ordering: a version counts saves from 1, the creation time stays.
func versionsAndTimes(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	const tolerance = 5 * time.Second // the server's clock may be another one
	before := time.Now().Add(-tolerance)

	var first state.Entry[jsontext.Value]
	for want := int64(1); want <= 3; want++ {
		saved, err := store.SaveWith(ctx, "k", jsontext.Value("1"), state.SaveOptions{})
		require.NoError(t, err)
		s.requireVersion(t, want, saved.Version)
		entry, err := store.GetWithETag(ctx, "k")
		require.NoError(t, err)
		s.requireVersion(t, want, entry.Version)
		require.True(t, entry.ExpiresAt.IsZero())
		if !s.keeps(Times) {
			continue
		}
		if want == 1 {
			first = entry
		}
		require.True(t, first.CreatedAt.Equal(entry.CreatedAt), "the creation time stays: %v, %v", first.CreatedAt, entry.CreatedAt)
		require.False(t, entry.UpdatedAt.Before(entry.CreatedAt))
		require.WithinRange(t, entry.UpdatedAt, before, time.Now().Add(tolerance))
		require.Equal(t, time.UTC, entry.UpdatedAt.Location())
	}

	_, err := store.Delete(ctx, "k")
	require.NoError(t, err)
	saved, err := store.SaveWith(ctx, "k", jsontext.Value("1"), state.SaveOptions{})
	require.NoError(t, err)
	s.requireVersion(t, 1, saved.Version)
	entry, err := store.GetWithETag(ctx, "k")
	require.NoError(t, err)
	require.False(t, entry.CreatedAt.Before(first.CreatedAt))
}

// A bad argument is told from a failing server, and leaves nothing behind.
func badArguments(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	for name, key := range map[string]string{
		"empty": "", "256 bytes": strings.Repeat("k", 256), "not UTF-8": "a\xff", "NUL": "a\x00b",
	} {
		_, err := store.Save(ctx, key, jsontext.Value("1"))
		require.ErrorIs(t, err, state.ErrInvalid, name)
		_, err = store.Get(ctx, key)
		require.ErrorIs(t, err, state.ErrInvalid, name)
		_, err = store.Delete(ctx, key)
		require.ErrorIs(t, err, state.ErrInvalid, name)
		_, err = store.GetBulk(ctx, []string{"good", key})
		require.ErrorIs(t, err, state.ErrInvalid, name)
	}
	for _, value := range []string{"", "{", "1 2", `{"a":1,"a":2}`, "\"\xff\"", "NaN", "01", "{} x"} {
		_, err := store.Save(ctx, "k", jsontext.Value(value))
		require.ErrorIs(t, err, state.ErrInvalid, "value %q", value)
		_, err = store.SaveBulk(ctx, []state.Item[jsontext.Value]{{Key: "good", Value: jsontext.Value("1")}, {Key: "k", Value: jsontext.Value(value)}})
		require.ErrorIs(t, err, state.ErrInvalid, "value %q", value)
	}
	for _, ttl := range []time.Duration{0, -time.Second, math.MaxInt64} {
		_, err := store.SaveWith(ctx, "k", jsontext.Value("1"), state.SaveOptions{Expiry: state.After(ttl)})
		require.ErrorIs(t, err, state.ErrInvalid, "%v", ttl)
	}
	require.ErrorIs(t, store.TryDelete(ctx, "k", ""), state.ErrInvalid)
	_, err := store.GetBulk(ctx, make([]string, state.MaxBulkKeys+1))
	require.ErrorIs(t, err, state.ErrInvalid)
	requireAbsent(t, store, "k")
	requireAbsent(t, store, "good")
}

// Keys are bytes. An engine that folds case, trims blanks, normalises Unicode or gives characters a meaning would let
// one user read another's value.
func unusualKeys(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	keys := []string{
		"key", "Key", "KEY", "key ", " key", "  ", "key\t", "key\n", "a b", "a:b", "a::b", ":", "a/b", "../b", "%", "%25", "_", "k_y",
		"*", "?", "[a-z]", `\`, `\*`, "'", "''", `"`, "`", ";--", "{", "}", "{}", "{}a", "{a}", "{a}b", "a{b}c{d}", "{{a}}",
		"é", "e\u0301", "ß", "ss", "ı", "İ", "日本語", "🙂", "👩‍👩‍👧", "\u200b", "\ufeff", "\u00a0", "\x01", "\x7f", "$1", "{0}", "null", "0", "00", "1e0",
		strings.Repeat("x", 255), strings.Repeat("x", 254) + "y", strings.Repeat("é", 127),
	}
	if !s.keeps(DistinctKeys) {
		seen := map[string]bool{}
		keys = slices.DeleteFunc(keys, func(key string) bool {
			folded := strings.ToLower(strings.Map(func(r rune) rune {
				if r > 0x7e || r <= ' ' {
					return -1
				}
				return r
			}, key))
			before := seen[folded] || folded == "" || folded != key
			seen[folded] = true
			return before
		})
	}
	if !s.keeps(AllKeys) {
		keys = slices.DeleteFunc(keys, func(key string) bool {
			_, err := store.Save(ctx, key, jsontext.Value("1"))
			refused := errors.Is(err, state.ErrInvalid)
			if !refused {
				_, err = store.Delete(ctx, key)
				require.NoError(t, err)
			}
			return refused
		})
		require.Greater(t, len(keys), 30, "most are keys all the same")
	}
	for i, key := range keys {
		_, err := store.TrySave(ctx, key, jsontext.Value(quote(key)), "")
		require.NoError(t, err, "key %d, %q, is taken for another one", i, key)
	}
	entries, err := store.GetBulk(ctx, keys)
	require.NoError(t, err)
	for i, key := range keys {
		requireValue(t, store, key, quote(key))
		require.Equal(t, quote(key), string(entries[i].Value), "key %q in bulk", key)
	}
	s.requireLen(t, store, len(keys))
	for _, key := range keys {
		deleted, err := store.Delete(ctx, key)
		require.NoError(t, err)
		require.True(t, deleted, "key %q", key)
	}
}

// The values that engines and JSON libraries are known to change: large integers and decimals through floats, null, text
// outside the basic plane, empty and deep containers. They come back as they were written.
func valuesSurvive(t *testing.T, s *suite) {
	store := s.raw(t)
	for _, value := range []string{
		"null", "true", "false", `""`, "{}", "[]", "0", "-0", "0.0", "1.0", "1.10", "1E5", "1e-7", "9007199254740993", "-9223372036854775808",
		"18446744073709551615", "123456789012345678901234567890", "3.14159265358979323846", "-1e-400", "0.1000000000000000055511151231257827",
		`[1.10,9007199254740993]`, `{"n":9007199254740993,"d":1.10}`, `{"b":1,"a":2,"":3}`, `{"a":null}`, `[null]`,
		`"🙂 日本語 é e` + "\u0301" + `"`, `"\u0000"`, `"\ud83d\ude42"`, `"\"\\\/\b\f\n\r\t"`, `"'; DROP TABLE state_entries; --"`, "\"\u2028\u007f\"",
	} {
		s.requireKept(t, store, value)
	}
	if !s.keeps(Numbers) {
		s.requireKept(t, store, "1e400")
	} else if _, err := store.Save(t.Context(), "k", jsontext.Value("1e400")); s.features.FloatRange {
		require.ErrorIs(t, err, state.ErrInvalid)
	} else {
		require.NoError(t, err)
		requireValue(t, store, "k", "1e400")
	}
	depth := s.features.Depth
	if depth == 0 {
		depth = 100
	} else {
		_, err := store.Save(t.Context(), "too deep", nested(depth+1))
		require.ErrorIs(t, err, state.ErrInvalid)
	}
	mustSave(t, store, "k", nested(depth))
	requireValue(t, store, "k", string(nested(depth)))
}

func nested(depth int) jsontext.Value {
	return jsontext.Value(strings.Repeat("[", depth) + strings.Repeat("]", depth))
}

type document struct {
	Name  string            `json:"name"`
	Big   int64             `json:"big"`
	Exact jsontext.Value    `json:"exact,omitempty"`
	Tags  map[string]string `json:"tags,omitempty"`
	At    time.Time         `json:"at"`
}

// Values have types, and one store may be seen through several. A value that does not fit is corrupt, never zero.
func typedValues(t *testing.T, s *suite) {
	ctx := t.Context()
	f := factory(t, s.driver, state.Options{}, state.StoreConfig{Name: newName()})
	name := f.Stores()[0].Name
	documents, err := state.Open[document](ctx, f, name)
	require.NoError(t, err)
	texts, err := state.Open[string](ctx, f, name)
	require.NoError(t, err)
	pointers, err := state.Open[*document](ctx, f, name)
	require.NoError(t, err)

	want := document{Name: "Ada 🙂", Big: s.largest(), Exact: jsontext.Value("1.5"), Tags: map[string]string{"é": "ß"}, At: time.Unix(1, 5).UTC()}
	mustSave(t, documents, "k", want)
	got, err := documents.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, want, got)
	pointed, err := pointers.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, want, *pointed)

	_, err = texts.Get(ctx, "k")
	require.ErrorIs(t, err, state.ErrCorrupt)
	require.NotErrorIs(t, err, state.ErrNotFound)
	require.ErrorContains(t, err, name)
	require.ErrorContains(t, err, `"k"`)

	mustSave(t, pointers, "nothing", nil)
	pointed, err = pointers.Get(ctx, "nothing")
	require.NoError(t, err, "null is a value")
	require.Nil(t, pointed)
}

// The limit is the same everywhere, so that a store can move from one engine to another; a byte more is refused.
func largestValue(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	largest := quote(strings.Repeat("x", state.MaxValueBytes-2))
	mustSave(t, store, "k", jsontext.Value(largest))
	v, err := store.Get(ctx, "k")
	require.NoError(t, err)
	require.True(t, bytes.Equal(v, []byte(largest)), "4 MiB come back") // not Equal, which prints them
	_, err = store.Save(ctx, "k", jsontext.Value(" "+largest))
	require.ErrorIs(t, err, state.ErrTooLarge)
}

// A buffer that is used again after a save, or changed after a read, does not reach into the store.
func callersOwnTheirBytes(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	mine := jsontext.Value(`"aaa"`)
	mustSave(t, store, "k", mine)
	mine[1] = 'b'
	requireValue(t, store, "k", `"aaa"`)
	v, err := store.Get(ctx, "k")
	require.NoError(t, err)
	v[1] = 'c'
	entries, err := store.GetBulk(ctx, []string{"k"})
	require.NoError(t, err)
	entries[0].Value[1] = 'd'
	requireValue(t, store, "k", `"aaa"`)
}

// Stores share a server, a database, often a table. One never sees, counts or deletes the other's keys.
func storesAreApart(t *testing.T, s *suite) {
	ctx := t.Context()
	one, other := newName(), newName()
	configs := []state.StoreConfig{{Name: one}, {Name: other}, {Name: one + "-2"}}
	f := factory(t, s.driver, state.Options{}, configs...)
	var stores []*state.Store[jsontext.Value]
	for _, c := range configs {
		store, err := state.Open[jsontext.Value](ctx, f, c.Name)
		require.NoError(t, err)
		stores = append(stores, store)
	}
	mustSave(t, stores[0], "k", jsontext.Value("0"))
	requireAbsent(t, stores[1], "k")
	mustSave(t, stores[1], "k", jsontext.Value("1"))
	mustSave(t, stores[2], "k", jsontext.Value("2"))
	deleted, err := stores[1].Delete(ctx, "k")
	require.NoError(t, err)
	require.True(t, deleted)
	requireValue(t, stores[0], "k", "0")
	requireValue(t, stores[2], "k", "2")
	for i, want := range []int{1, 0, 1} {
		s.requireLen(t, stores[i], want)
	}
}

// Listings show how many keys a store has.
func countOfKeys(t *testing.T, s *suite) {
	ctx := t.Context()
	store := s.raw(t)
	items := make([]state.Item[jsontext.Value], 250) // more than one batch of a scan
	for i := range items {
		items[i] = state.Item[jsontext.Value]{Key: bulkKey(i), Value: jsontext.Value("1")}
	}
	_, err := store.SaveBulk(ctx, items)
	require.NoError(t, err)
	mustSave(t, store, bulkKey(0), jsontext.Value("2"))
	_, err = store.Delete(ctx, bulkKey(1))
	require.NoError(t, err)
	s.requireLen(t, store, len(items)-1)
}
