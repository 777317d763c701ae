package pairs

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// A pace gives events their times at a fixed rate, whether or not the ones before are through: what queues up counts.
type pace struct {
	begin    time.Time
	interval time.Duration

	mu    sync.Mutex
	delay []time.Duration // of each event, from its time to its handling
}

func newPace(n int, perSecond float64) *pace {
	return &pace{begin: time.Now(), interval: time.Duration(float64(time.Second) / perSecond), delay: make([]time.Duration, 0, n)}
}

// due is an event's time.
func (p *pace) due(number int) time.Time { return p.begin.Add(time.Duration(number) * p.interval) }

// wait returns at an event's time.
func (p *pace) wait(number int) { <-time.After(time.Until(p.due(number))) }

// handled notes that an event was handled now.
func (p *pace) handled(number int) {
	delay := time.Since(p.due(number))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = append(p.delay, delay)
}

// report makes the 99th percentile the benchmark's figure, in place of the time of the whole divided by its events.
func (p *pace) report(b *testing.B) {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.delay)
	b.ReportMetric(float64(p.delay[len(p.delay)*99/100].Nanoseconds()), "ns/op")
}
