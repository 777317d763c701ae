package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTableOfWhatGoTestPrints(t *testing.T) {
	printed := `goos: linux
BenchmarkRedis/get_many/64_callers/raw-2      	   10000	     40000 ns/op	     120 B/op	       3 allocs/op
BenchmarkRedis/get_many/64_callers/bannou-2   	   20000	     20000 ns/op	     200 B/op	       5 allocs/op
BenchmarkOnlyOurs/bannou-2       	   20000	       200 ns/op
PASS`
	var results []*result
	for range 3 {
		results = collect(results, printed)
	}
	require.Len(t, results, 2)
	require.Len(t, results[0].raw, 3)
	var page strings.Builder
	s := suite{title: "State", note: "As it is.", bars: map[string]float64{"get many, 64 callers": 2}}
	s.write(&page, results[:1])
	require.Empty(t, s.missed(results[:1]))
	require.Contains(t, page.String(), "As it is.")
	require.Contains(t, page.String(), "| get many, 64 callers | 40.0 µs | 20.0 µs | 2.00 (2.00–2.00) | 2.00 | 3 / 5 |")

	s.bars["get many, 64 callers"] = 2.5
	s.write(&page, results[:1])
	require.Contains(t, page.String(), "| 2.00 (2.00–2.00) | 2.50, missed | 3 / 5 |")
	require.Equal(t, []string{"State: get many, 64 callers: 2.00 of 2.50"}, s.missed(results[:1]))
}

// Suites that measure what calls cost have two columns more.
func TestTableOfCosts(t *testing.T) {
	var results []*result
	for range 3 {
		results = collect(results, `BenchmarkMesh/call/raw-2 100 40000 ns/op 150000 cpu-ns/op 900 p99-ns/op 120 B/op 3 allocs/op
BenchmarkMesh/call/bannou-2 100 20000 ns/op 120400 cpu-ns/op 2500 p99-ns/op 120 B/op 3 allocs/op
BenchmarkMesh/pick/raw-2 100 40 ns/op 0 B/op 0 allocs/op
BenchmarkMesh/pick/bannou-2 100 40 ns/op 0 B/op 0 allocs/op`)
	}
	var page strings.Builder
	suite{title: "The mesh"}.write(&page, results)
	require.Contains(t, page.String(), "| CPU of 1000 raw / bannou | p99 raw / bannou |\n")
	require.Contains(t, page.String(), "| 3 / 3 | 150 ms / 120 ms | 900 ns / 2.5 µs |\n")
	require.Contains(t, page.String(), "| 0 / 0 |  |  |\n")
}

// Where the heap was measured, the page has it.
func TestHeapIsOnThePage(t *testing.T) {
	results := collect(nil, `BenchmarkProjections/rebuild/raw-2 3 40000 ns/op 4.20 heap-MiB 120 B/op 3 allocs/op
BenchmarkProjections/rebuild/bannou-2 3 80000 ns/op 61.7 heap-MiB 120 B/op 3 allocs/op`)
	var page strings.Builder
	suite{title: "Projections"}.write(&page, results)
	require.Contains(t, page.String(), "| most heap raw / bannou |\n")
	require.Contains(t, page.String(), "| 4 MiB / 62 MiB |\n")
}

// What has no raw side is held to times.
func TestTableOfLimits(t *testing.T) {
	var results []*result
	for range 3 {
		results = collect(results, "BenchmarkEvents/live/bannou-2 1 1200000 ns/op 26000000 p99-ns/op 3 allocs/op")
	}
	var page strings.Builder
	s := suite{title: "Events", limits: map[string]limit{"live": {p50: 5 * time.Millisecond, p99: 30 * time.Millisecond}}}
	s.write(&page, results)
	require.Empty(t, s.missed(results))
	require.Contains(t, page.String(), "| live | 1200.0 µs | 5ms | 26000.0 µs | 30ms |\n")
	s.limits["live"] = limit{p50: 5 * time.Millisecond, p99: 25 * time.Millisecond}
	s.write(&page, results)
	require.Contains(t, page.String(), "| 25ms, missed |\n")
	require.Equal(t, []string{"Events: live: 1200.0 µs and 26000.0 µs of 5ms and 25ms"}, s.missed(results))
}
