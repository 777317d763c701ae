package memorystate_test

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/memorystate"
)

func openStore(t testing.TB) *state.Store[string] {
	t.Helper()
	d := memorystate.New()
	f, err := state.NewFactory([]state.StoreConfig{{Name: "s", Backend: d.Backend()}}, []state.Driver{d}, state.Options{})
	require.NoError(t, err)
	store, err := state.Open[string](t.Context(), f, "s")
	require.NoError(t, err)
	return store
}

// To the nanosecond: there a moment before its time, gone at it.
func TestExpiresOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t)
		_, err := store.SaveWith(t.Context(), "k", "v", state.SaveOptions{Expiry: state.After(time.Hour)})
		require.NoError(t, err)
		entry, err := store.GetWithETag(t.Context(), "k")
		require.NoError(t, err)
		require.True(t, entry.ExpiresAt.Equal(time.Now().Add(time.Hour)))

		pass(time.Hour - time.Nanosecond)
		exists, err := store.Exists(t.Context(), "k")
		require.NoError(t, err)
		require.True(t, exists)
		pass(time.Nanosecond)
		exists, err = store.Exists(t.Context(), "k")
		require.NoError(t, err)
		require.False(t, exists)
		_, err = store.TrySave(t.Context(), "k", "w", "")
		require.NoError(t, err)
	})
}

// Keys that expire unread do not pile up: the memory of a hundred thousand sessions, one after another, is that of the
// few that live at once.
func TestExpiredKeysAreFreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t)
		value := string(make([]byte, 1<<10))
		short := state.SaveOptions{Expiry: state.After(time.Second)}
		saves := 100_000
		if testing.Short() {
			saves = 20_000
		}
		for i := range saves {
			_, err := store.SaveWith(t.Context(), fmt.Sprint("session-", i), value, short)
			require.NoError(t, err)
			if i%100 == 99 {
				pass(time.Second)
			}
		}
		n, err := store.Len(t.Context())
		require.NoError(t, err)
		require.LessOrEqual(t, n, int64(100))
		var memory runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&memory)
		require.Less(t, memory.HeapAlloc, uint64(saves)<<9, "of each save a kilobyte is kept")
		runtime.KeepAlive(store)
	})
}

// A key that is saved again and again, each time with an expiry, leaves nothing of the earlier ones behind.
func TestRenewedKeysAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t)
		for i := range 1000 {
			_, err := store.SaveWith(t.Context(), "k", "v", state.SaveOptions{Expiry: state.After(time.Hour + time.Duration(i%7)*time.Minute)})
			require.NoError(t, err)
			pass(30 * time.Minute)
			n, err := store.Len(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, 1, n)
		}
		pass(2 * time.Hour)
		n, err := store.Len(t.Context())
		require.NoError(t, err)
		require.Zero(t, n)
	})
}

// pass lets time go by on the clock of the test.
func pass(d time.Duration) { <-time.After(d) }
