package mesh

import (
	"sync"
	"sync/atomic"
	"time"
)

// budgetWindow is the time whose calls count for a budget.
const budgetWindow = 10 * time.Second

// A budget bounds the further attempts at a target: within any ten seconds there are no more than a share of the calls of
// those seconds and a fixed allowance. So a target that fails gets little more than it would get if it did not, however
// many callers try again. The idea is Finagle's RetryBudget.
//
// Calls are counted by whole seconds, without a lock. Where the window's edge cuts a second, its calls are left out and
// its attempts are counted, so that the bound holds for every ten seconds, not on the average.
type budget struct {
	share     float64 // further attempts for each call
	allowance float64 // and in each window whatever the calls are

	calls secondCounts

	mu    sync.Mutex // one withdrawal at a time
	spent secondCounts
}

func newBudget(r *Retry) *budget {
	return &budget{share: float64(max(0, r.BudgetPercent)) / 100,
		allowance: float64(max(0, r.BudgetPerSecond)) * budgetWindow.Seconds()}
}

// called counts a call.
func (b *budget) called(now time.Duration) { b.calls.add(now) }

// withdraw takes one further attempt out of the budget, and reports whether there was one.
func (b *budget) withdraw(now time.Duration) bool {
	const seconds = uint32(budgetWindow / time.Second)
	b.mu.Lock()
	defer b.mu.Unlock()
	spent, calls := b.spent.sum(now, seconds+1), b.calls.sum(now, seconds)
	if float64(spent+1) > b.share*float64(calls)+b.allowance {
		return false
	}
	b.spent.add(now)
	return true
}

// secondCounts counts events by the second in which they were. It remembers the latest 16 seconds.
type secondCounts [16]atomic.Uint64 // the second in the upper half, how many in the lower

func secondOf(now time.Duration) uint32 { return uint32(now / time.Second) }

func (c *secondCounts) add(now time.Duration) {
	second := secondOf(now)
	word := &c[second%uint32(len(c))]
	for {
		old := word.Load()
		next := old + 1
		switch had := uint32(old >> 32); {
		case had > second:
			return // it came so late that its second is forgotten
		case had < second:
			next = uint64(second)<<32 | 1
		}
		if word.CompareAndSwap(old, next) {
			return
		}
	}
}

// sum counts the events of the second of an instant and of those before it.
func (c *secondCounts) sum(now time.Duration, seconds uint32) (n uint64) {
	last := secondOf(now)
	for i := range c {
		word := c[i].Load()
		if second := uint32(word >> 32); second <= last && last-second < seconds {
			n += word & 0xffffffff
		}
	}
	return n
}
