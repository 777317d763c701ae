package membership

import (
	"bytes"
	"math"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// clockTick is the unit of /proc/{pid}/stat: 1/100 s on every Linux architecture that Go runs on (USER_HZ).
const clockTick = 10 * time.Millisecond

// A loadMeter tells how busy the process is. It is safe for concurrent use.
type loadMeter struct {
	mu   sync.Mutex
	at   time.Time
	used time.Duration // CPU time of the process at that moment
	cpu  float64       // share of the last period, 0 to 100
}

func newLoadMeter() *loadMeter {
	used, _ := cpuTime()
	return &loadMeter{at: time.Now(), used: used}
}

// percent is the larger of two shares: CPU time since it was last asked of what the process may use, and requests of
// those it may serve at once. Where there is no /proc it is the second.
func (l *loadMeter) percent(inFlight, most int) float64 {
	requests := 0.0
	if most > 0 {
		requests = 100 * float64(inFlight) / float64(most)
	}
	return math.Round(10*min(100, max(requests, l.cpuShare()))) / 10
}

func (l *loadMeter) cpuShare() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	used, ok := cpuTime()
	now := time.Now()
	if !ok {
		return 0
	}
	period := now.Sub(l.at)
	if period < 10*clockTick { // too short to tell
		return l.cpu
	}
	l.cpu = 100 * float64(used-l.used) / (float64(period) * float64(runtime.GOMAXPROCS(0)))
	l.at, l.used = now, used
	return l.cpu
}

// cpuTime is what the process has used so far, from proc(5).
func cpuTime() (time.Duration, bool) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, false
	}
	// The second field is the command's name in parentheses, which may hold anything; utime and stime are the 14th and
	// 15th.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, false
	}
	user, err1 := strconv.ParseInt(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * clockTick, err1 == nil && err2 == nil
}
