package membership

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// used is the CPU time of this process as the system's other way of asking tells it.
func used(t *testing.T) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The share of CPU is measured: it is what the system counted, of what the process may use.
func TestTheLoadIsTheCPUs(t *testing.T) {
	if _, ok := cpuTime(); !ok {
		t.Skip("this system has no /proc/self/stat: the load is that of requests alone")
	}
	var end atomic.Bool
	var burning sync.WaitGroup
	defer burning.Wait()
	defer end.Store(true)
	early, cpuEarly := time.Now(), used(t)
	meter := newLoadMeter()
	late, cpuLate := time.Now(), used(t)
	burning.Go(func() {
		for !end.Load() {
		}
	})
	require.Eventually(t, func() bool { return used(t)-cpuLate > 200*time.Millisecond }, 30*time.Second, 10*time.Millisecond)
	share := func(cpu, wall time.Duration) float64 {
		return 100 * float64(cpu) / (float64(wall) * float64(runtime.GOMAXPROCS(0)))
	}
	cpuBefore, wallBefore := used(t)-cpuLate, time.Since(late)
	got := meter.percent(0, 1000)
	cpuAfter, wallAfter := used(t)-cpuEarly, time.Since(early)
	const coarse, rounded = 2 * clockTick, 0.1 // clockTick is what the meter counts in
	require.GreaterOrEqual(t, got, share(cpuBefore-coarse, wallAfter)-rounded)
	require.LessOrEqual(t, got, share(cpuAfter+coarse, wallBefore)+rounded)
	require.Greater(t, got, 0.0)

	require.GreaterOrEqual(t, meter.percent(750, 1000), 75.0, "requests count where they are the larger share")
	require.InDelta(t, 100, meter.percent(5000, 1000), 0, "and 100 is all")
}
