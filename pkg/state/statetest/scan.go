package statetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// scanner opens a store's engine, past package state, and the store itself.
func scanner(t *testing.T, s *suite) (state.Scanner, *state.Store[jsontext.Value]) {
	t.Helper()
	cfg := state.StoreConfig{Name: newName()}
	f := factory(t, s.driver, state.Options{}, cfg)
	store, err := state.Open[jsontext.Value](t.Context(), f, cfg.Name)
	require.NoError(t, err)
	engine, err := s.driver.Open(t.Context(), f.Stores()[0])
	require.NoError(t, err)
	walked, ok := engine.(state.Scanner)
	if !ok {
		t.Skip("the engine's keys cannot be walked")
	}
	return walked, store
}

// walk counts how often each key is met.
func walk(t *testing.T, s state.Scanner, limit int) map[string]int {
	t.Helper()
	met := map[string]int{}
	for cursor := ""; ; {
		keys, next, err := s.Scan(t.Context(), cursor, limit)
		require.NoError(t, err)
		once := map[string]bool{}
		for _, key := range keys {
			require.False(t, once[key], "%q came twice in one answer", key)
			once[key] = true
			met[key]++
		}
		if next == "" {
			return met
		}
		require.NotEqual(t, cursor, next, "a walk that does not move on")
		cursor = next
	}
}

// A walk meets what is there, of its own store alone, and nothing that has expired.
func walkMeetsAll(t *testing.T, s *suite) {
	scan, store := scanner(t, s)
	require.Empty(t, walk(t, scan, 10))
	_, neighbour := scanner(t, s)
	mustSave(t, neighbour, "not mine", jsontext.Value("1"))
	want := map[string]bool{"*": true, "?x": true, "a ": true, "a": true, "ä/\n": true, `back\slash`: true, "[b]": true}
	for i := range 2500 {
		want[bulkKey(i)] = true
	}
	var items []state.Item[jsontext.Value]
	for key := range want {
		items = append(items, state.Item[jsontext.Value]{Key: key, Value: jsontext.Value("1")})
	}
	for len(items) > 0 {
		n := min(len(items), state.MaxBulkKeys)
		_, err := store.SaveBulk(t.Context(), items[:n])
		require.NoError(t, err)
		items = items[n:]
	}
	_, err := store.SaveWith(t.Context(), "gone", jsontext.Value("1"), state.SaveOptions{Expiry: state.After(time.Millisecond)})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		exists, err := store.Exists(t.Context(), "gone")
		return err == nil && !exists
	}, 5*time.Second, time.Millisecond)
	for _, limit := range []int{1000, 100, len(want)} {
		met := walk(t, scan, limit)
		require.Len(t, met, len(want))
		for key := range want {
			require.Positive(t, met[key], "%q was not met", key)
		}
	}
}

// What is there from begin to end is met while others write and delete around it.
func walkWhileOthersWrite(t *testing.T, s *suite) {
	scan, store := scanner(t, s)
	const steady = 1500
	for from := 0; from < steady; from += 500 {
		items := make([]state.Item[jsontext.Value], 500)
		for i := range items {
			items[i] = state.Item[jsontext.Value]{Key: fmt.Sprintf("steady-%04d", from+i), Value: jsontext.Value("1")}
		}
		_, err := store.SaveBulk(t.Context(), items)
		require.NoError(t, err)
	}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	var failed error
	var once sync.Once
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("passing-%d-%d", w, i%200)
				_, err := store.Save(t.Context(), key, jsontext.Value("1"))
				if err == nil && i%3 == 0 {
					_, err = store.Delete(t.Context(), key)
				}
				if err == nil {
					_, err = store.Save(t.Context(), fmt.Sprintf("steady-%04d", (i*7+w)%steady), jsontext.Value("2"))
				}
				if err != nil {
					once.Do(func() { failed = err })
					return
				}
			}
		})
	}
	defer func() {
		close(stop)
		writers.Wait()
		require.NoError(t, failed)
	}()
	for range 3 {
		met := walk(t, scan, 100)
		for i := range steady {
			require.Positive(t, met[fmt.Sprintf("steady-%04d", i)], "key %d was not met", i)
		}
	}
}

// A walk goes on where it was left, by another opening of the store.
func walkGoesOn(t *testing.T, s *suite) {
	scan, store := scanner(t, s)
	const n = 3000
	for from := 0; from < n; from += 1000 {
		items := make([]state.Item[jsontext.Value], 1000)
		for i := range items {
			items[i] = state.Item[jsontext.Value]{Key: bulkKey(from + i), Value: jsontext.Value("1")}
		}
		_, err := store.SaveBulk(t.Context(), items)
		require.NoError(t, err)
	}
	met := map[string]bool{}
	first, cursor, err := scan.Scan(t.Context(), "", 100)
	require.NoError(t, err)
	require.NotEmpty(t, cursor)
	for _, key := range first {
		met[key] = true
	}
	engine, err := s.driver.Open(t.Context(), factory(t, s.driver, state.Options{}, state.StoreConfig{Name: store.Name()}).Stores()[0])
	require.NoError(t, err)
	again := engine.(state.Scanner)
	for cursor != "" {
		var keys []string
		keys, cursor, err = again.Scan(t.Context(), cursor, 700)
		require.NoError(t, err)
		for _, key := range keys {
			met[key] = true
		}
	}
	require.Len(t, met, n)
}
