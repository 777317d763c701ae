package state_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// The server is killed five times while changes share transactions with their entries in the outbox. Of an acknowledged
// change the entry is there, of a refused one it is not, and of one with an unknown outcome it is there if the change is.
func TestMySQLAnnouncedWhenTheServerIsKilled(t *testing.T) {
	const kills, writers = 5, 24
	server := servers.NewMySQL(t, servers.MySQLOptions{})
	driver := newMySQL(t, mysqlstate.Config{DSN: server.DSN})
	outbox := state.OutboxConfig{Name: "changes", MaxEntries: 1 << 20, MaxBytes: 1 << 30}
	f, err := state.NewFactory([]state.StoreConfig{{Name: "told", Backend: "mysql", PublishChanges: true}}, []state.Driver{driver},
		state.Options{Announce: &state.Announce{Outbox: outbox, Entry: func(_ context.Context, c state.Changed) (state.OutboxEntry, error) {
			body, err := json.Marshal(c)
			return state.OutboxEntry{Key: c.Key, Topic: "changed", Properties: []byte("{}"), Body: body}, err
		}}})
	require.NoError(t, err)
	store, err := state.Open[int](t.Context(), f, "told")
	require.NoError(t, err)

	over := make(chan struct{})
	var mu sync.Mutex
	want := map[string][]string{} // by key, the ETags that its writer has made
	unknown := map[string]int{}   // by key, what its writer saved last, and does not know whether
	acknowledged, refused := 0, 0
	failed := make(chan error, writers)
	first, err := store.Save(t.Context(), "first", 0) // makes the tables
	require.NoError(t, err)
	want["first"] = []string{first}
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			key := fmt.Sprint("k", w)
			for i := 1; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
				etag, err := store.Save(ctx, key, i)
				cancel()
				mu.Lock()
				switch {
				case err == nil:
					acknowledged++
					want[key] = append(want[key], etag)
				case errors.Is(err, state.ErrOutcomeUnknown):
					unknown[key] = i
					key = fmt.Sprintf("k%d-%d", w, i) // it may still be made
				case errors.Is(err, state.ErrUnavailable):
					refused++
				default:
					select {
					case failed <- err:
					default: // one is enough
					}
				}
				mu.Unlock()
			}
		})
	}
	look := func() (int64, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		box, err := driver.OpenOutbox(ctx, outbox)
		if err != nil {
			return 0, err
		}
		stats, err := box.Stats(ctx)
		return stats.Depth, err
	}
	count := func() (n int64) {
		require.Eventually(t, func() bool {
			var err error
			n, err = look()
			return err == nil
		}, patience, 20*time.Millisecond)
		return n
	}
	more := func(than int64) {
		require.Eventually(t, func() bool { n, err := look(); return err == nil && n > than }, patience, 10*time.Millisecond)
	}
	for range kills {
		more(count() + 200)
		require.NoError(t, server.Kill())
		require.NoError(t, server.Restart(t.Context()))
	}
	more(count() + 200)
	close(over)
	wait.Wait()
	require.Empty(t, failed)
	found := 0
	for key, i := range unknown {
		entry, err := store.GetWithETag(t.Context(), key)
		if err == nil && entry.Value == i {
			found++
			want[key] = append(want[key], entry.ETag)
		} else if err != nil {
			require.ErrorIs(t, err, state.ErrNotFound)
		}
	}

	box, err := driver.OpenOutbox(t.Context(), outbox)
	require.NoError(t, err)
	got := map[string][]string{}
	for {
		entries, err := box.Claim(t.Context(), state.OutboxClaim{Owner: "me", Lease: time.Minute, MaxEntries: 1000})
		require.NoError(t, err)
		if len(entries) == 0 {
			break
		}
		done := make([]int64, len(entries))
		for i, e := range entries {
			var c state.Changed
			require.NoError(t, json.Unmarshal(e.Body, &c))
			got[c.Key] = append(got[c.Key], c.ETag)
			done[i] = e.ID
		}
		require.NoError(t, box.Delete(t.Context(), "me", done...))
	}
	require.Equal(t, want, got, "acknowledged and lost, or made up")
	stats, err := box.Stats(t.Context())
	require.NoError(t, err)
	require.Zero(t, stats, "the counts are exact")
	t.Logf("%d kills: %d changes acknowledged, %d refused, %d unknown of which %d were made; events lost 0, made up 0",
		kills, acknowledged, refused, len(unknown), found)
}
