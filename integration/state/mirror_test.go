package state_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mirror"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/redisstate"
)

// mirroredStore is a store on d that is compared with its counterpart.
func mirroredStore(t *testing.T, d state.Driver, cfg state.StoreConfig, to mirror.Counterpart) (*state.Store[map[string]int], *mirror.Ledger) {
	t.Helper()
	ledger := mirror.NewLedger()
	wrapped, err := mirror.Wrap(d, mirror.Config{Ledger: ledger, To: func(state.StoreConfig) (mirror.Counterpart, bool) { return to, true }})
	require.NoError(t, err)
	cfg.Backend = wrapped.Backend()
	f, err := state.NewFactory([]state.StoreConfig{cfg}, []state.Driver{wrapped}, state.Options{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, f.Close())
		require.NoError(t, to.Driver.Close())
	})
	s, err := state.Open[map[string]int](t.Context(), f, cfg.Name)
	require.NoError(t, err)
	return s, ledger
}

// Two views of Dapr's rows in one Redis, by different names of the store, are the same to the ETag; what a stranger changes in one is in both.
func TestMirrorOfTheSameRows(t *testing.T) {
	t.Parallel()
	url := servers.Redis(t).URL
	here, err := redisstate.New(redisstate.Config{URLs: []string{url}})
	require.NoError(t, err)
	there, err := redisstate.New(redisstate.Config{URLs: []string{url}})
	require.NoError(t, err)
	s, ledger := mirroredStore(t, here, state.StoreConfig{Name: "accounts", KeyPrefix: "mirrored||"},
		mirror.Counterpart{Driver: there, Store: state.StoreConfig{Name: "people", KeyPrefix: "mirrored||"}, ETags: true})
	for i := range 300 {
		key := fmt.Sprint(i)
		_, err := s.SaveWith(t.Context(), key, map[string]int{"n": i}, state.SaveOptions{Expiry: state.After(time.Hour)})
		require.NoError(t, err)
		if i%10 == 0 {
			_, err = s.Delete(t.Context(), key)
			require.NoError(t, err)
		}
	}
	var r mirror.Report
	require.Eventually(t, func() bool { r, _ = ledger.Report("accounts", time.Hour); return r.Compared >= 250 && r.Waiting == 0 }, 60*time.Second, 10*time.Millisecond)
	require.Zero(t, r.Different, "%+v", r)
	require.Zero(t, r.Failures)
}

// The mirror's database is killed in the middle of the work, and comes back. No caller fails, the report tells of it, and afterwards
// changes are carried again.
func TestMirrorKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a database of its own")
	}
	t.Parallel()
	here, err := redisstate.New(redisstate.Config{URLs: []string{servers.Redis(t).URL}})
	require.NoError(t, err)
	server := servers.NewMySQL(t, servers.MySQLOptions{})
	there, err := mysqlstate.New(mysqlstate.Config{DSN: server.DSN})
	require.NoError(t, err)
	s, ledger := mirroredStore(t, here, state.StoreConfig{Name: "accounts"},
		mirror.Counterpart{Driver: there, Store: state.StoreConfig{Name: "accounts", TableName: "state_entries"}, Writes: true})
	ctx, stop := context.WithCancel(t.Context())
	var made atomic.Int64
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("%d-%d", w, i%50)
				if _, err := s.Save(ctx, key, map[string]int{"n": i}); err != nil {
					if ctx.Err() == nil {
						t.Errorf("save while the mirror is killed: %s", err)
					}
					return
				}
				made.Add(1)
			}
		})
	}
	report := func(of string, done func(r mirror.Report) bool) (r mirror.Report) {
		t.Helper()
		require.Eventually(t, func() bool { r, _ = ledger.Report("accounts", time.Hour); return done(r) }, 90*time.Second, 20*time.Millisecond, of)
		return r
	}
	report("changes are carried", func(r mirror.Report) bool { return r.Carried > 100 })
	require.NoError(t, server.Kill())
	before := made.Load()
	killed := report("the report says that the mirror is away", func(r mirror.Report) bool { return r.FailedAt != nil })
	require.NotEmpty(t, killed.LastFailure)
	require.Eventually(t, func() bool { return made.Load() > before+1000 }, 60*time.Second, 10*time.Millisecond, "callers go on")
	require.NoError(t, server.Restart(t.Context()))
	report("changes are carried again", func(r mirror.Report) bool { return r.Carried > killed.Carried+100 })
	stop()
	writers.Wait()
	t.Logf("%d saves, %+v", made.Load(), report("all was looked at", func(r mirror.Report) bool { return r.Waiting == 0 }))
}
