package pairs

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// A pace gives events their times at a fixed rate, whether or not the ones before are through: what queues up counts. The
// first warmUp of the time is not looked at, in which both sides' processes find their size.
type pace struct {
	begin    time.Time
	interval time.Duration
	first    int // the first event that counts
	objects  uint64

	mu    sync.Mutex
	delay []time.Duration // of each event, from its time to its handling
}

const (
	warmUp      = 500 * time.Millisecond
	leastPacing = 2 * time.Second // that many events have a 99th percentile that can be told from a hiccup
)

// newPace is for n events and those of the warm-up, or for as many more as leastPacing takes; events is their number.
func newPace(n int, perSecond float64) (p *pace, events int) {
	p = &pace{interval: time.Duration(float64(time.Second) / perSecond), first: int(perSecond * warmUp.Seconds())}
	n = max(n, int(perSecond*leastPacing.Seconds()))
	p.delay = make([]time.Duration, 0, n)
	return p, p.first + n
}

// start gives the first event its time, which is now.
func (p *pace) start() { p.objects, p.begin = objects(), time.Now() }

// objects is how many objects the process has allocated.
func objects() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// due is an event's time.
func (p *pace) due(number int) time.Time { return p.begin.Add(time.Duration(number) * p.interval) }

// wait returns at an event's time.
func (p *pace) wait(number int) { <-time.After(time.Until(p.due(number))) }

// handled notes that an event was handled now.
func (p *pace) handled(number int) {
	if number < p.first {
		return
	}
	delay := time.Since(p.due(number))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = append(p.delay, delay)
}

// report makes the 99th percentile the benchmark's figure, in place of the time of the whole divided by its calls, and
// counts allocations by event.
func (p *pace) report(b *testing.B) {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.delay)
	b.ReportMetric(float64(p.delay[len(p.delay)*99/100].Nanoseconds()), "ns/op")
	b.ReportMetric(float64(objects()-p.objects)/float64(p.first+len(p.delay)), "allocs/op")
}
