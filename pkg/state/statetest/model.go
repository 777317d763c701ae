package statetest

import (
	"strconv"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Seen by one caller a store is a map with versions. Random sequences of all operations are made on a store and on a
// map, and must not differ; rapid prints the shortest sequence that shows a difference, and its seed.
func likeAMap(t *testing.T, s *suite) {
	store := s.raw(t)
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{T: rt, test: t, suite: s, store: store, entries: map[string]modelEntry{}, old: []string{"never was"}}
		_, err := store.DeleteBulk(t.Context(), m.keys())
		require.NoError(rt, err)
		rt.Repeat(map[string]func(*rapid.T){
			"":         m.same,
			"save":     m.save,
			"bulk":     m.bulk,
			"delete":   m.delete,
			"transact": m.transact,
		})
	})
}

// modelKeys share a hash tag, so that any of them may meet in a transaction.
func (m *model) keys() []string {
	if !m.suite.keeps(DistinctKeys) {
		return []string{"{m}a", "{m}b", "{m}:c", "{m}_", "{m}"}
	}
	return []string{"{m}a", "{m}A", "{m} ", "{m}é", "{m}"}
}

type model struct {
	*rapid.T
	test    *testing.T
	suite   *suite
	store   *state.Store[jsontext.Value]
	entries map[string]modelEntry
	old     []string // ETags that are out of use
	saves   int
}

type modelEntry struct {
	value   string
	etag    string
	version int64
}

// draw makes one random change and says whether its condition holds.
func (m *model) draw(key string, mayDelete bool) (o state.Op[jsontext.Value], holds bool) {
	present, exists := m.entries[key]
	o = state.Op[jsontext.Value]{Key: key}
	o.Delete = mayDelete && rapid.Bool().Draw(m.T, "delete")
	if !o.Delete {
		m.saves++
		o.Value = jsontext.Value(strconv.Itoa(m.saves))
		o.Expiry = rapid.SampledFrom([]state.Expiry{0, state.Keep, state.Never, state.After(time.Hour)}).Draw(m.T, "expiry")
	}
	switch rapid.SampledFrom([]string{"any", "absent", "present", "old"}).Draw(m.T, "condition") {
	case "absent":
		if !o.Delete {
			o.ETag = etag("")
			return o, !exists
		}
	case "present":
		if exists {
			o.ETag = etag(present.etag)
		}
	case "old":
		o.ETag = etag(rapid.SampledFrom(m.old).Draw(m.T, "etag"))
		return o, false
	}
	return o, true
}

// made takes over what the store says it did.
func (m *model) made(o state.Op[jsontext.Value], r state.Result) {
	before, exists := m.entries[o.Key]
	if exists && m.suite.keeps(FreshETags) { // else they may come again, of any key
		m.old = append(m.old, before.etag)
	}
	if o.Delete {
		require.Equal(m, exists, r.Done)
		delete(m.entries, o.Key)
		return
	}
	require.True(m, r.Done)
	if m.suite.keeps(FreshETags) {
		require.NotContains(m, m.old, r.ETag)
	}
	if m.suite.keeps(Versions) {
		require.Equal(m, before.version+1, r.Version)
	}
	m.entries[o.Key] = modelEntry{value: string(o.Value), etag: r.ETag, version: r.Version}
}

func (m *model) save(rt *rapid.T) {
	m.T = rt
	o, holds := m.draw(rapid.SampledFrom(m.keys()).Draw(rt, "key"), false)
	var saved state.Saved
	var err error
	if o.ETag == nil {
		saved, err = m.store.SaveWith(m.test.Context(), o.Key, o.Value, state.SaveOptions{Expiry: o.Expiry})
	} else {
		saved, err = m.store.TrySaveWith(m.test.Context(), o.Key, o.Value, *o.ETag, state.SaveOptions{Expiry: o.Expiry})
	}
	if !holds {
		require.ErrorIs(rt, err, state.ErrConflict)
		return
	}
	require.NoError(rt, err)
	m.made(o, state.Result{Key: o.Key, Done: true, ETag: saved.ETag, Version: saved.Version})
}

func (m *model) delete(rt *rapid.T) {
	m.T = rt
	key := rapid.SampledFrom(m.keys()).Draw(rt, "key")
	present, exists := m.entries[key]
	switch rapid.SampledFrom([]string{"any", "present", "old"}).Draw(rt, "condition") {
	case "any":
		deleted, err := m.store.Delete(m.test.Context(), key)
		require.NoError(rt, err)
		m.made(state.Op[jsontext.Value]{Key: key, Delete: true}, state.Result{Done: deleted})
	case "old":
		want := state.ErrConflict
		if !exists {
			want = state.ErrNotFound
		}
		require.ErrorIs(rt, m.store.TryDelete(m.test.Context(), key, rapid.SampledFrom(m.old).Draw(rt, "etag")), want)
	case "present":
		if !exists {
			return
		}
		require.NoError(rt, m.store.TryDelete(m.test.Context(), key, present.etag))
		m.made(state.Op[jsontext.Value]{Key: key, Delete: true}, state.Result{Done: true})
	}
}

func (m *model) bulk(rt *rapid.T) {
	m.T = rt
	var items []state.Item[jsontext.Value]
	var ops []state.Op[jsontext.Value]
	var holds []bool
	for _, key := range m.some(rt) {
		o, ok := m.draw(key, false)
		ops, holds = append(ops, o), append(holds, ok)
		items = append(items, state.Item[jsontext.Value]{Key: o.Key, Value: o.Value, ETag: o.ETag, Expiry: o.Expiry})
	}
	results, err := m.store.SaveBulk(m.test.Context(), items)
	require.NoError(rt, err)
	for i, r := range results {
		if holds[i] {
			require.NoError(rt, r.Err)
			m.made(ops[i], r)
		} else {
			require.ErrorIs(rt, r.Err, state.ErrConflict)
		}
	}
}

func (m *model) transact(rt *rapid.T) {
	m.T = rt
	var ops []state.Op[jsontext.Value]
	var conflicts []string
	for _, key := range m.some(rt) {
		o, ok := m.draw(key, true)
		if !m.suite.keeps(Conditions) {
			o.ETag, ok = nil, true
		}
		ops = append(ops, o)
		if !ok {
			conflicts = append(conflicts, key)
		}
	}
	results, err := m.store.Transact(m.test.Context(), ops)
	if conflicts != nil {
		var conflict *state.ConflictError
		require.ErrorAs(rt, err, &conflict)
		require.Equal(rt, conflicts, conflict.Keys)
		return
	}
	require.NoError(rt, err)
	for i, r := range results {
		m.made(ops[i], r)
	}
}

// same compares the store with the map.
func (m *model) same(rt *rapid.T) {
	entries, err := m.store.GetBulk(m.test.Context(), m.keys())
	require.NoError(rt, err)
	for i, e := range entries {
		want, exists := m.entries[m.keys()[i]]
		require.Equal(rt, exists, e.Found, "key %q", e.Key)
		require.Equal(rt, want, modelEntry{value: string(e.Value), etag: e.ETag, version: e.Version}, "key %q", e.Key)
	}
	if !m.suite.keeps(Counting) {
		return
	}
	n, err := m.store.Len(m.test.Context())
	require.NoError(rt, err)
	require.EqualValues(rt, len(m.entries), n)
}

func (m *model) some(rt *rapid.T) []string {
	keys := rapid.Permutation(m.keys()).Draw(rt, "keys")
	return keys[:rapid.IntRange(1, len(keys)).Draw(rt, "how many")]
}
