package pairs

import (
	"slices"
	"syscall"
	"testing"
	"time"
)

// compareCosts measures calls as compareCalls does, and beside their time what they cost: the 99th percentile of their
// latencies, and the processor's time of the whole process, in which callers, hops and servers all run.
func compareCosts(b *testing.B, name string, callers []int, raw, bannou call) {
	for _, n := range callers {
		compare(b, named(name, n), costing(n, raw), costing(n, bannou))
	}
}

func costing(callers int, work call) func(b *testing.B) {
	return func(b *testing.B) {
		ctx := b.Context()
		latencies := make([][]time.Duration, callers)
		b.ReportAllocs()
		b.ResetTimer()
		before := processorTime(b)
		together(b, callers, b.N, func(caller, _ int) error {
			begin := time.Now()
			err := work(ctx, caller)
			latencies[caller] = append(latencies[caller], time.Since(begin))
			return err
		})
		b.StopTimer()
		spent := processorTime(b) - before
		all := slices.Concat(latencies...)
		slices.Sort(all)
		b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "cpu-ns/op")
		b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds()), "p99-ns/op")
	}
}

// processorTime is what this process has used, in user and in system mode.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
