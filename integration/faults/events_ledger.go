package faults

import (
	"errors"
	"sync"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// An EventPlace is an event of a load, and where its writer was told that it is.
type EventPlace struct {
	ID       string              `json:"id"`
	Stream   eventstore.StreamID `json:"stream"`
	Version  int64               `json:"version,omitzero"`
	Position int64               `json:"position,omitzero"`
}

// EventNews is what a writer says of the events of one append: that it begins, with no verdict, and then what it was told.
type EventNews struct {
	Verdict  Verdict      `json:"verdict,omitzero"`
	Conflict bool         `json:"conflict,omitzero"` // it was refused because the stream has another version
	Failure  string       `json:"failure,omitzero"`  // of a wrong one
	Events   []EventPlace `json:"events"`
}

// An EventLedger knows what became of each event. It is safe for concurrent use.
type EventLedger struct {
	mu           sync.Mutex
	verdicts     map[string]EventNews // by id, with one event
	acknowledged int
	conflicts    int
	wrong        []error
}

// NewEventLedger returns an empty ledger.
func NewEventLedger() *EventLedger { return &EventLedger{verdicts: map[string]EventNews{}} }

// Enter enters what a writer says.
func (l *EventLedger) Enter(n EventNews) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range n.Events {
		l.verdicts[e.ID] = EventNews{Verdict: n.Verdict, Events: []EventPlace{e}}
	}
	switch {
	case n.Verdict == Acknowledged:
		l.acknowledged += len(n.Events)
	case n.Verdict == Wrong:
		l.wrong = append(l.wrong, errors.New(n.Failure))
	case n.Conflict:
		l.conflicts += len(n.Events)
	}
}

// Wrong is what no append should say.
func (l *EventLedger) Wrong() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.wrong[:min(len(l.wrong), 5)]...)
}

// Settled is how many events were acknowledged.
func (l *EventLedger) Settled() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acknowledged
}

// EventTotals are an EventLedger's sums, held against the log and what subscriptions have handled.
type EventTotals struct {
	Sent, Acknowledged, Refused, Conflicts, Unknown int // events; conflicts are among the refused

	Made   int // of those unknown
	Lost   int // acknowledged, and not there, or in another place
	Untrue int // refused, and there
	Gaps   int // positions of the log, and versions of its streams, that are left out

	Seen       int // by all subscriptions together
	Unmade     int // handled, and not in the log: another event has its position, or none
	Twice      int // handled again, in a transaction that was committed
	Missed     int // and never handled
	Disordered int // handled before an event that stands before it
}

// Totals adds up; log is all that was appended, by anybody.
func (l *EventLedger) Totals(log []eventstore.Recorded) EventTotals {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := EventTotals{Sent: len(l.verdicts), Conflicts: l.conflicts}
	there := make(map[string]EventPlace, len(log))
	versions := map[eventstore.StreamID]int64{}
	for i, e := range log {
		if e.Position != int64(i)+1 || e.Version != versions[e.Stream]+1 {
			t.Gaps++
		}
		versions[e.Stream] = e.Version
		there[e.ID] = EventPlace{e.ID, e.Stream, e.Version, e.Position}
	}
	for id, n := range l.verdicts {
		place, found := there[id]
		switch n.Verdict {
		case Acknowledged:
			t.Acknowledged++
			if place != n.Events[0] {
				t.Lost++
			}
		case Refused:
			t.Refused++
			if found {
				t.Untrue++
			}
		default:
			t.Unknown++
			if found {
				t.Made++
			}
		}
	}
	return t
}

// A HandledEvent is one that a subscription has written down.
type HandledEvent struct {
	Position int64
	ID       string
}

// Handle adds what one subscription has handled, in the order of its transactions; each returns what has to follow each other among them.
func (t *EventTotals) Handle(log []eventstore.Recorded, handled []HandledEvent, each func(e *eventstore.Recorded) string) {
	t.Seen += len(handled)
	seen := make(map[int64]bool, len(handled))
	last := map[string]int64{}
	for _, h := range handled {
		position := h.Position
		switch {
		case position < 1 || position > int64(len(log)) || log[position-1].ID != h.ID:
			t.Unmade++
			continue
		case seen[position]:
			t.Twice++
			continue
		}
		seen[position] = true
		key := each(&log[position-1])
		if position < last[key] {
			t.Disordered++
		}
		last[key] = position
	}
	t.Missed += len(log) - len(seen)
}
