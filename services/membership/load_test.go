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
	meter := newLoadMeter()
	wall, cpu := time.Now(), used(t)
	burning.Go(func() {
		for !end.Load() {
		}
	})
	require.Eventually(t, func() bool { return used(t)-cpu > 200*time.Millisecond }, 30*time.Second, 10*time.Millisecond)
	got := meter.percent(0, 1000)
	want := 100 * float64(used(t)-cpu) / (float64(time.Since(wall)) * float64(runtime.GOMAXPROCS(0)))
	require.InDelta(t, want, got, 10)
	require.Greater(t, got, 0.0)

	require.GreaterOrEqual(t, meter.percent(750, 1000), 75.0, "requests count where they are the larger share")
	require.InDelta(t, 100, meter.percent(5000, 1000), 0, "and 100 is all")
}
