package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// Slack is how much later than its deadline a publish may return: the scheduler's share. Time in which this process did not run at all is
	// not counted.
	Slack = 250 * time.Millisecond
	// ClusterSlack is that where the nodes of a cluster share the machine's cores.
	ClusterSlack = 2 * Slack
	// atWork is how many events may be published and not yet handled. Without a bound the publishers outrun the handlers,
	// and what looks lost is only waiting.
	atWork = 500
	// mostSubscriptions is how many subscriptions a ledger can tell apart.
	mostSubscriptions = 2
)

// A Ledger knows what became of each event, by its number. It is safe for concurrent use.
type Ledger struct {
	subscriptions int
	slack         time.Duration
	room          chan struct{} // taken by an event until it is settled

	mu      sync.Mutex
	events  []event
	settled int
	late    []string
}

// Properties say how an event is published.
type Properties struct {
	PartitionKey string
	Mandatory    bool
	Deadline     time.Duration
}

type event struct {
	Properties
	begun    time.Time
	returned bool // the publish is over
	err      error
	handled  [mostSubscriptions]int
	excused  bool // it may be missing
	settled  bool // nothing more is waited for
}

// Totals are a ledger's sums. Handled and Duplicated are over all subscriptions, Lost and Excused are events.
type Totals struct{ Sent, Confirmed, Handled, Duplicated, Lost, Excused, Late int }

// NewLedger counts for one or two subscriptions, each of which is to handle every event. A publish is late that returns more
// than slack after its deadline.
func NewLedger(subscriptions int, slack time.Duration) *Ledger {
	return &Ledger{subscriptions: subscriptions, slack: slack, room: make(chan struct{}, atWork)}
}

// Begin enters a new event and returns its number. It waits while too many are at work; false: ctx ended first.
func (l *Ledger) Begin(ctx context.Context, p Properties) (n int, ok bool) {
	select {
	case l.room <- struct{}{}:
	case <-ctx.Done():
		return 0, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, event{Properties: p, begun: time.Now()})
	return len(l.events) - 1, true
}

// Published enters how a publish ended, and how long after its deadline.
func (l *Ledger) Published(n int, err error, overdue time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &l.events[n]
	e.returned, e.err = true, err
	if overdue > l.slack {
		l.late = append(l.late, fmt.Sprintf("event %d: %s after its deadline, %+v, %v", n, overdue, e.Properties, err))
	}
	l.settle(e)
}

// Handled enters that a subscription has handled an event.
func (l *Ledger) Handled(subscription, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &l.events[n]
	e.handled[subscription]++
	l.settle(e)
}

// Excuse enters that what is at work now may be missing in the end: somebody removed it.
func (l *Ledger) Excuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.events {
		if e := &l.events[i]; !e.settled {
			e.excused = true
			l.settle(e)
		}
	}
}

// settle makes room once nothing more is waited for. The caller holds mu.
func (l *Ledger) settle(e *event) {
	if e.settled || !e.returned || e.err == nil && !e.excused && !l.everywhere(e) {
		return
	}
	e.settled = true
	if e.err == nil && l.everywhere(e) {
		l.settled++
	}
	<-l.room
}

// everywhere reports whether each subscription has handled the event.
func (l *Ledger) everywhere(e *event) bool {
	for _, times := range e.handled[:l.subscriptions] {
		if times == 0 {
			return false
		}
	}
	return true
}

// Settled is how many events were confirmed and handled by all.
func (l *Ledger) Settled() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.settled
}

// Totals adds up. Lost is what was confirmed and some subscription has not handled.
func (l *Ledger) Totals() Totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := Totals{Sent: len(l.events), Late: len(l.late)}
	for i := range l.events {
		e := &l.events[i]
		if e.err == nil && e.returned {
			t.Confirmed++
			switch missing := !l.everywhere(e); {
			case missing && e.excused:
				t.Excused++
			case missing:
				t.Lost++
			}
		}
		for _, times := range e.handled[:l.subscriptions] {
			t.Handled += min(times, 1)
			t.Duplicated += max(times-1, 0)
		}
	}
	return t
}

// Late describes the publishes that returned later than their deadline.
func (l *Ledger) Late() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.late)
}

// Missing describes up to twenty lost events, for who has to find out why.
func (l *Ledger) Missing() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out strings.Builder
	shown := 0
	for n := range l.events {
		e := &l.events[n]
		if !e.returned || e.err != nil || e.excused || l.everywhere(e) || shown == 20 {
			continue
		}
		shown++
		fmt.Fprintf(&out, "event %d: begun %s, handled %v, %+v, fails first: %t\n", n, e.begun.Format("15:04:05.000"), e.handled[:l.subscriptions], e.Properties, failsFirst(0, n))
	}
	return out.String()
}
