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

// projected is how many events a projection is rebuilt of. A million take longer than 30 s to insert.
const projected = 250_000

// BenchmarkProjections rebuilds, on MySQL, a projection that counts events of 512 B by their type, of which there are twenty: from the command until
// the new version is live. The raw side counts the same rows with one statement within the server.
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
	begin := time.Now()
	fillInServer(b, db, projected)
	b.Logf("%d events were inserted in %s", projected, time.Since(begin).Round(time.Millisecond))
	set, err := projection.Open(b.Context(), events, projection.Config{Poll: 20 * time.Millisecond, Definitions: []projection.Definition{counts()}})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, set.Close(context.WithoutCancel(b.Context()))) })
	_, err = set.Await(b.Context(), "counts", projected)
	require.NoError(b, err)
	name := fmt.Sprintf("rebuild of a count of %d events, beside GROUP BY/1_caller", projected)
	compare(b, name, withMemory(from(1, grouped(db))), withMemory(rebuilt(db, set)))
}

// fillInServer doubles a few rows in the server until they are so many, with positions in order.
func fillInServer(b *testing.B, db *sql.DB, total int) {
	b.Helper()
	const first = 1000
	rows := make([]string, first)
	for i := range rows {
		rows[i] = fmt.Sprintf(`(%d, 'bulk', '0', %d, UNHEX(MD5(%d)), 'type-%d', 1, '{}', '{"number":%d,"text":"%s"}', 0)`, i+1, i+1, i+1, i%20, i, text[:480])
	}
	const columns = " (position, category, stream, version, event_id, type, schema_version, metadata, data, recorded_at) "
	_, err := db.ExecContext(b.Context(), "INSERT INTO events"+columns+"VALUES "+strings.Join(rows, ","))
	require.NoError(b, err)
	for have := first; have < total; {
		more := min(have, total-have, 50_000)
		_, err := db.ExecContext(b.Context(), "INSERT INTO events"+columns+"SELECT position + ?, category, FLOOR((position - 1 + ?) / 1000), version, "+
			"UNHEX(MD5(position + ?)), type, schema_version, metadata, data, recorded_at FROM events WHERE position <= ?", have, have, have, more)
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
func grouped(db *sql.DB) call {
	return func(ctx context.Context, _ int) error {
		return countAll(ctx, db, "SELECT COUNT(*) FROM events GROUP BY type")
	}
}

// countAll requires that all events are counted.
func countAll(ctx context.Context, db *sql.DB, query string) error {
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
	return expect(total, projected)
}

// rebuilt rebuilds, and drops what was rebuilt while the clock stands.
func rebuilt(db *sql.DB, set *projection.Set) func(b *testing.B) {
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
			require.NoError(b, countAll(b.Context(), db, "SELECT n FROM "+built.Table("counts")))
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
