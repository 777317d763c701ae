package statetest

import (
	"context"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A value that somebody has damaged is an error that names it. Reported as absent, it would be created anew and lost.
func corruptValues(t *testing.T, s *suite) {
	if s.features.Corrupt == nil {
		t.Skip("there is no way past this driver")
	}
	ctx := t.Context()
	name := newName()
	f := factory(t, s.driver, state.Options{}, state.StoreConfig{Name: name})
	store, err := state.Open[jsontext.Value](ctx, f, name)
	require.NoError(t, err)
	for _, text := range []string{"{", "", "not JSON", `{"a":1}}`, "\xff"} {
		mustSave(t, store, "k", jsontext.Value("1"))
		mustSave(t, store, "good", jsontext.Value("1"))
		s.features.Corrupt(t, s.driver, store.Name(), "k", text)
		_, err := store.Get(ctx, "k")
		require.ErrorIs(t, err, state.ErrCorrupt, "%q", text)
		require.NotErrorIs(t, err, state.ErrNotFound, "%q", text)
		require.ErrorContains(t, err, store.Name())
		require.ErrorContains(t, err, `"k"`)
		_, err = store.GetBulk(ctx, []string{"good", "k"})
		require.ErrorIs(t, err, state.ErrCorrupt, "%q", text)
		require.ErrorContains(t, err, store.Name())
		require.ErrorContains(t, err, `"k"`)
		requireValue(t, store, "good", "1")
		if s.features.Query {
			corruptQueried(t, f, name, text)
		}

		mustSave(t, store, "k", jsontext.Value(`{"a":1}`)) // a corrupt value can be replaced
		requireValue(t, store, "k", `{"a":1}`)
		s.features.Corrupt(t, s.driver, store.Name(), "k", text)
		deleted, err := store.Delete(ctx, "k")
		require.NoError(t, err, "a corrupt value can be removed")
		require.True(t, deleted)
		requireAbsent(t, store, "k")
	}
}

// corruptQueried has queries meet the damaged value of k. What finds it names it; what only looks into it may do so, or may take it for a
// value that does not match, as MariaDB does: the backend is not away.
func corruptQueried(t *testing.T, f *state.Factory, name, text string) {
	t.Helper()
	store, err := state.OpenQueryable[jsontext.Value](t.Context(), f, name)
	require.NoError(t, err)
	_, err = store.Query(t.Context(), state.Query{})
	require.ErrorIs(t, err, state.ErrCorrupt, "%q", text)
	require.ErrorContains(t, err, name)
	require.ErrorContains(t, err, `"k"`)
	filter := state.Where("a").Eq(1)
	found, err := store.Query(t.Context(), state.Query{Filter: filter, Sort: []state.Sort{{Field: "b"}}})
	_, counting := store.Count(t.Context(), filter)
	for _, err := range []error{err, counting} {
		if err != nil {
			require.ErrorIs(t, err, state.ErrCorrupt, "%q", text)
			require.NotErrorIs(t, err, state.ErrUnavailable)
			require.ErrorContains(t, err, name)
			require.ErrorContains(t, err, `"k"`)
		}
	}
	require.Empty(t, found)
}

// A caller that has gone away is not served: a call whose context has ended changes nothing and says so.
func cancelledCalls(t *testing.T, s *suite) {
	store := s.raw(t)
	mustSave(t, store, "k", jsontext.Value("1"))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancelLate()
	for ctx, want := range map[context.Context]error{cancelled: context.Canceled, late: context.DeadlineExceeded} {
		_, err := store.Get(ctx, "k")
		require.ErrorIs(t, err, want)
		_, err = store.Save(ctx, "k", jsontext.Value("2"))
		require.ErrorIs(t, err, want)
		_, err = store.Delete(ctx, "k")
		require.ErrorIs(t, err, want)
		_, err = store.SaveBulk(ctx, []state.Item[jsontext.Value]{{Key: "k", Value: jsontext.Value("2")}})
		require.ErrorIs(t, err, want)
		_, err = store.Transact(ctx, []op{{Key: "k", Delete: true}})
		require.ErrorIs(t, err, want)
		_, err = store.Len(ctx)
		require.ErrorIs(t, err, want)
	}
	requireValue(t, store, "k", "1")
}

// Caches and the events on the bus follow the changes that were made, and no others.
func changesAreTold(t *testing.T, s *suite) {
	ctx := t.Context()
	told, silent := newName(), newName()
	var heard []state.Changed
	f := factory(t, s.driver, state.Options{OnChange: func(_ context.Context, c state.Changed) { heard = append(heard, c) }},
		state.StoreConfig{Name: told, PublishChanges: true}, state.StoreConfig{Name: silent})
	quiet, err := state.Open[int](ctx, f, silent)
	require.NoError(t, err)
	mustSave(t, quiet, "k", 1)
	store, err := state.Open[int](ctx, f, told)
	require.NoError(t, err)

	first := mustSave(t, store, "{t}k", 1)
	second, err := store.TrySave(ctx, "{t}k", 2, first)
	require.NoError(t, err)
	_, err = store.TrySave(ctx, "{t}k", 3, first)
	require.ErrorIs(t, err, state.ErrConflict)
	_, err = store.Delete(ctx, "{t}absent")
	require.NoError(t, err)
	condition := &second
	_, err = store.Transact(ctx, []state.Op[int]{{Key: "{t}k", Delete: true, ETag: &first}, {Key: "{t}l", Value: 1}})
	if s.keeps(Conditions) {
		require.ErrorIs(t, err, state.ErrConflict)
	} else {
		require.ErrorIs(t, err, state.ErrUnsupported)
		condition = nil
	}
	results, err := store.Transact(ctx, []state.Op[int]{{Key: "{t}k", Delete: true, ETag: condition}, {Key: "{t}l", Value: 1}})
	require.NoError(t, err)
	_, err = store.DeleteBulk(ctx, []string{"{t}l", "{t}absent"})
	require.NoError(t, err)
	require.Equal(t, []state.Changed{
		{Store: told, Key: "{t}k", Operation: state.OperationSave, ETag: first},
		{Store: told, Key: "{t}k", Operation: state.OperationSave, ETag: second},
		{Store: told, Key: "{t}k", Operation: state.OperationDelete},
		{Store: told, Key: "{t}l", Operation: state.OperationSave, ETag: results[1].ETag},
		{Store: told, Key: "{t}l", Operation: state.OperationDelete},
	}, heard)
}

// What was acknowledged is there after the program was started again, and continues where it was.
func reopened(t *testing.T, s *suite) {
	if s.features.Reopen == nil {
		t.Skip("stores of this driver end with it")
	}
	ctx := t.Context()
	name := newName()
	driver := s.open(t)
	value := `{"n":1.10}`
	if !s.keeps(Text) {
		value = `{"n":1.1}`
	}
	store := openStore[jsontext.Value](t, &suite{driver: driver}, state.StoreConfig{Name: name})
	etag := mustSave(t, store, "k", jsontext.Value(value))
	_, err := store.SaveWith(ctx, "short", jsontext.Value("1"), state.SaveOptions{Expiry: state.After(time.Hour)})
	require.NoError(t, err)

	store = openStore[jsontext.Value](t, &suite{driver: s.features.Reopen(t, driver)}, state.StoreConfig{Name: name})
	entry, err := store.GetWithETag(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, value, string(entry.Value))
	require.Equal(t, etag, entry.ETag)
	s.requireExpiry(t, store, "short", time.Hour)
	_, err = store.TrySave(ctx, "k", jsontext.Value("2"), etag)
	require.NoError(t, err)
}

// After Close nothing hangs and nothing panics.
func closed(t *testing.T, s *suite) {
	ctx := t.Context()
	driver := s.open(t)
	f := factory(t, driver, state.Options{}, state.StoreConfig{Name: newName()})
	store, err := state.Open[int](ctx, f, f.Stores()[0].Name)
	require.NoError(t, err)
	require.NoError(t, f.Ready(ctx))
	require.NoError(t, f.Close())
	require.NoError(t, f.Close(), "closing twice does no harm")
	require.Error(t, f.Ready(ctx))
	_, err = store.Get(ctx, "k")
	require.ErrorIs(t, err, state.ErrUnavailable)
	_, err = store.Save(ctx, "k", 1)
	require.ErrorIs(t, err, state.ErrUnavailable)
	_, err = store.Transact(ctx, []state.Op[int]{{Key: "k", Value: 1}})
	require.ErrorIs(t, err, state.ErrUnavailable)
	_, err = store.Len(ctx)
	require.ErrorIs(t, err, state.ErrUnavailable)
}
