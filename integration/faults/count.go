package faults

import (
	"sync"
	"time"
)

// Subscriptions is how many independent handlers read the topic of a load.
const Subscriptions = 2

// Slack is how much later than its deadline a publish may return: the scheduler's share.
const Slack = 250 * time.Millisecond

// A Ledger knows what became of each event, by its number. It is safe for concurrent use.
type Ledger struct {
	mu        sync.Mutex
	confirmed []bool
	handled   [][Subscriptions]int
	late      int
}

// Totals are a ledger's sums. Handled and Duplicated are over all subscriptions.
type Totals struct{ Sent, Confirmed, Handled, Duplicated, Lost, Late int }

// Begin enters a new event, and returns its number.
func (l *Ledger) Begin() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.confirmed = append(l.confirmed, false)
	l.handled = append(l.handled, [Subscriptions]int{})
	return len(l.confirmed) - 1
}

// Published enters how a publish ended, and how long after its deadline.
func (l *Ledger) Published(n int, err error, overdue time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.confirmed[n] = err == nil
	if overdue > Slack {
		l.late++
	}
}

// Handled enters that a subscription has handled an event.
func (l *Ledger) Handled(subscription, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handled[n][subscription]++
}

// Totals adds up. Lost is what was confirmed and some subscription has not handled.
func (l *Ledger) Totals() Totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := Totals{Sent: len(l.confirmed), Late: l.late}
	for n, confirmed := range l.confirmed {
		if confirmed {
			t.Confirmed++
		}
		for _, times := range l.handled[n] {
			switch {
			case times > 0:
				t.Handled++
				t.Duplicated += times - 1
			case confirmed:
				t.Lost++
			}
		}
	}
	return t
}
