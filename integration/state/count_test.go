package state_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

// A large store is counted over and over while its neighbours are written, in turn with times without a count: whoever
// saves hardly notices.
func TestCountingDoesNotHoldUpSaves(t *testing.T) {
	large := 200_000
	if testing.Short() {
		large = 20_000
	}
	for name, open := range map[string]func(t *testing.T) state.Driver{
		"redis": func(t *testing.T) state.Driver {
			d, err := redisstate.New(redisstate.Config{URLs: []string{servers.NewRedis(t, servers.RedisOptions{}).URL}})
			require.NoError(t, err)
			return d
		},
		"mysql": func(t *testing.T) state.Driver {
			d, err := mysqlstate.New(mysqlstate.Config{DSN: servers.NewMySQL(t, servers.MySQLOptions{}).DSN})
			require.NoError(t, err)
			return d
		},
		"sqlite": func(t *testing.T) state.Driver {
			d, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(t.TempDir(), "state.db")})
			require.NoError(t, err)
			return d
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t)
			f, err := state.NewFactory([]state.StoreConfig{{Name: "large", Backend: name}, {Name: "written", Backend: name}}, []state.Driver{d}, state.Options{})
			require.NoError(t, err)
			defer func() { require.NoError(t, f.Close()) }()
			fill(t, f, large)
			written, err := state.Open[jsontext.Value](t.Context(), f, "written")
			require.NoError(t, err)
			counted, err := state.Open[jsontext.Value](t.Context(), f, "large")
			require.NoError(t, err)

			var alone, beside []time.Duration
			var counts, counting atomic.Int64
			for range 5 {
				alone = append(alone, saveFor(t, written, 300*time.Millisecond)...)
				ctx, stop := context.WithCancel(t.Context())
				var wait sync.WaitGroup
				wait.Go(func() {
					for ctx.Err() == nil {
						begin := time.Now()
						n, err := counted.Len(ctx)
						if ctx.Err() != nil {
							return
						}
						if err != nil || n < int64(large) || n > int64(large)*101/100 { // on Redis a key may count twice
							t.Errorf("counted %d of %d: %v", n, large, err)
							return
						}
						counting.Add(int64(time.Since(begin)))
						counts.Add(1)
					}
				})
				beside = append(beside, saveFor(t, written, 300*time.Millisecond)...)
				// A count that takes long is let through once.
				for deadline := time.Now().Add(20 * time.Second); counts.Load() == 0 && time.Now().Before(deadline) && !t.Failed(); {
					beside = append(beside, saveFor(t, written, 100*time.Millisecond)...)
				}
				stop()
				wait.Wait()
			}
			require.Positive(t, counts.Load())
			t.Logf("%d keys counted in %v; saves alone %v, %v at the 99th percentile, beside a count %v, %v", large, time.Duration(counting.Load()/counts.Load()),
				at(alone, 50), at(alone, 99), at(beside, 50), at(beside, 99))
			// Who is held up waits for as long as a count takes.
			one := time.Duration(counting.Load() / counts.Load())
			require.Less(t, at(beside, 50)-at(alone, 50), max(one/2, 5*time.Millisecond))
		})
	}
}

// fill makes the store large. Every tenth key expires some day.
func fill(t *testing.T, f *state.Factory, n int) {
	t.Helper()
	store, err := state.Open[jsontext.Value](t.Context(), f, "large")
	require.NoError(t, err)
	value := jsontext.Value(fmt.Sprintf(`{"text":"%0200d"}`, 0))
	for first := 0; first < n; first += state.MaxBulkKeys {
		items := make([]state.Item[jsontext.Value], state.MaxBulkKeys)
		for i := range items {
			items[i] = state.Item[jsontext.Value]{Key: fmt.Sprintf("key-%d", first+i), Value: value}
			if i%10 == 0 {
				items[i].Expiry = state.After(time.Hour)
			}
		}
		results, err := store.SaveBulk(t.Context(), items)
		require.NoError(t, err)
		for _, r := range results {
			require.NoError(t, r.Err)
		}
	}
}

// saveFor has one caller save for a while, and tells how long each save took.
func saveFor(t *testing.T, s *state.Store[jsontext.Value], d time.Duration) []time.Duration {
	t.Helper()
	var took []time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); {
		begin := time.Now()
		_, err := s.Save(t.Context(), fmt.Sprintf("key-%d", len(took)%100), jsontext.Value(`{"n":1}`))
		require.NoError(t, err)
		took = append(took, time.Since(begin))
	}
	return took
}

// at is a percentile.
func at(took []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[len(sorted)*percent/100]
}
