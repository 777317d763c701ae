package state_test

import (
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
	"github.com/bannou-mesh/bannou/pkg/state/sqlitestate"
)

// BenchmarkOutbox is what callers wait for who publish while the broker is away: an event of 1 KiB on disk.
func BenchmarkOutbox(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) {
		driver, err := sqlitestate.New(sqlitestate.Config{Path: filepath.Join(b.TempDir(), "state.db")})
		require.NoError(b, err)
		enqueueTogether(b, driver)
	})
	b.Run("mysql", func(b *testing.B) {
		driver, err := mysqlstate.New(mysqlstate.Config{DSN: servers.MySQL(b).DSN})
		require.NoError(b, err)
		enqueueTogether(b, driver)
	})
}

func enqueueTogether(b *testing.B, driver state.OutboxDriver) {
	b.Cleanup(func() { require.NoError(b, driver.Close()) })
	for _, callers := range []int{1, 64} {
		b.Run(strconv.Itoa(callers)+" callers", func(b *testing.B) {
			box, err := driver.OpenOutbox(b.Context(), state.OutboxConfig{Name: b.Name(), MaxEntries: 1 << 30, MaxBytes: 1 << 40})
			require.NoError(b, err)
			body := make([]byte, 1<<10)
			var left, failed atomic.Int64
			left.Store(int64(b.N))
			ended := make(chan struct{})
			b.ResetTimer()
			for c := range callers {
				go func() {
					defer func() { ended <- struct{}{} }()
					entry := state.OutboxEntry{Key: strconv.Itoa(c), Topic: "a.topic", Properties: []byte(`{"messageId":"m","contentType":"application/json"}`), Body: body}
					for left.Add(-1) >= 0 {
						if err := box.Enqueue(b.Context(), entry); err != nil {
							failed.Add(1)
						}
					}
				}()
			}
			for range callers {
				<-ended
			}
			require.Zero(b, failed.Load())
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
