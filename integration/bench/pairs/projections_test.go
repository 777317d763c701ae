package pairs

import (
	"context"
	"database/sql"
	"fmt"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bannou-mesh/bannou/integration/servers"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/mysqlevents"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
	"github.com/bannou-mesh/bannou/pkg/state/mysqlstate"
)

// BenchmarkProjections rebuilds, on MySQL, a projection that counts events of 512 B by their type, of which there are twenty: from the command until
// the new version is live. The raw side counts the same rows with one statement within the server. The log grows from one size to the next, which shows whether
// memory grows with it.
func BenchmarkProjections(b *testing.B) {
	server := servers.NewMySQL(b, servers.MySQLOptions{})
	driver, err := mysqlstate.New(mysqlstate.Config{DSN: server.DSN, MaxConns: mysqlConnections})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, driver.Close()) })
	events, err := mysqlevents.Open(driver, eventstore.Config{})
	require.NoError(b, err)
	_, err = events.Head(b.Context())
	require.NoError(b, err)
	db := openMySQL(b, server.DSN)
	set, err := projection.Open(b.Context(), events, projection.Config{Poll: 20 * time.Millisecond, Definitions: []projection.Definition{counts()}})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, set.Close(context.WithoutCancel(b.Context()))) })
	have := 0
	for _, total := range []int{100_000, 300_000, 1_000_000} {
		begin := time.Now()
		fillInServer(b, db, have, total)
		have = total
		_, err = set.Await(b.Context(), "counts", int64(total))
		require.NoError(b, err)
		b.Logf("%d events are there, and counted, after %s", total, time.Since(begin).Round(time.Millisecond))
		name := fmt.Sprintf("rebuild of a count of %d events, beside GROUP BY/1_caller", total)
		compare(b, name, withMemory(from(1, grouped(db, total))), withMemory(rebuilt(db, set, total)))
	}
}

// fillInServer adds rows in the server until they are so many, with positions and ids in order, as they are in a log: each statement copies up to 50 000 of
// those that are there.
func fillInServer(b *testing.B, db *sql.DB, have, total int) {
	b.Helper()
	const columns = " (position, category, stream, version, event_id, type, schema_version, metadata, data, recorded_at) "
	if have == 0 {
		const first = 1000
		rows := make([]string, first)
		for i := range rows {
			rows[i] = fmt.Sprintf(`(%d, 'bulk', '0', %d, UNHEX(LPAD(HEX(%d), 32, '0')), 'type-%d', 1, '{}', '{"number":%d,"text":"%s"}', 0)`, i+1, i+1, i+1, i%20, i, text[:480])
		}
		_, err := db.ExecContext(b.Context(), "INSERT INTO events"+columns+"VALUES "+strings.Join(rows, ","))
		require.NoError(b, err)
		have = first
	}
	for have < total {
		more := min(have, total-have, 50_000)
		_, err := db.ExecContext(b.Context(), "INSERT INTO events"+columns+"SELECT position + ?, category, FLOOR((position - 1 + ?) / 1000), version, "+
			"UNHEX(LPAD(HEX(position + ?), 32, '0')), type, schema_version, metadata, data, recorded_at FROM events WHERE position <= ?", have, have, have, more)
		require.NoError(b, err)
		have += more
	}
}

// counts counts events by type: one statement a batch.
func counts() projection.Definition {
	return projection.Definition{Name: "counts", Category: "bulk",
		Tables: []projection.Table{{Name: "counts", Columns: "(type VARBINARY(128) NOT NULL PRIMARY KEY, n BIGINT NOT NULL)"}},
		Apply: func(ctx context.Context, batch projection.Batch) error {
			found := map[string]int64{}
			for i := range batch.Events {
				found[batch.Events[i].Type]++
			}
			var args []any
			for kind, n := range found {
				args = append(args, kind, n)
			}
			insert := "INSERT INTO " + batch.Version.Table("counts") + " (type, n) VALUES (?, ?)" + strings.Repeat(", (?, ?)", len(found)-1) +
				" ON DUPLICATE KEY UPDATE n = n + VALUES(n)"
			_, err := batch.Tx.ExecContext(ctx, insert, args...)
			return err
		}}
}

// grouped counts with one statement.
func grouped(db *sql.DB, total int) call {
	return func(ctx context.Context, _ int) error {
		return countAll(ctx, db, total, "SELECT COUNT(*) FROM events GROUP BY type")
	}
}

// countAll requires that all events are counted.
func countAll(ctx context.Context, db *sql.DB, want int, query string) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err tells
	total := 0
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			return err
		}
		total += n
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return expect(total, want)
}

// rebuilt rebuilds, and drops what was rebuilt while the clock stands.
func rebuilt(db *sql.DB, set *projection.Set, total int) func(b *testing.B) {
	return func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			built, err := set.Rebuild(b.Context(), "counts", false)
			require.NoError(b, err)
			for live := (projection.Version{}); live != built; {
				live, err = set.Live(b.Context(), "counts")
				require.NoError(b, err)
				if live != built {
					<-time.After(5 * time.Millisecond)
				}
			}
			b.StopTimer()
			require.NoError(b, countAll(b.Context(), db, total, "SELECT n FROM "+built.Table("counts")))
			require.NoError(b, set.Swap(b.Context(), "counts", 1))
			require.NoError(b, set.Drop(b.Context(), "counts", built.Number))
			b.StartTimer()
		}
	}
}

// withMemory reports the most memory that the heap takes meanwhile.
func withMemory(measure func(b *testing.B)) func(b *testing.B) {
	return func(b *testing.B) {
		var peak atomic.Uint64
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
			for {
				metrics.Read(sample)
				peak.Store(max(peak.Load(), sample[0].Value.Uint64()))
				select {
				case <-tick.C:
				case <-stop:
					return
				}
			}
		}()
		measure(b)
		close(stop)
		<-stopped
		b.ReportMetric(float64(peak.Load())/(1<<20), "heap-MiB")
	}
}
