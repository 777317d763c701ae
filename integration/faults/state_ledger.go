package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A WriteKind is how a StateLoad writes.
type WriteKind string

// The kinds. Save and Pair make new keys; Count changes one key of its writer on condition of its ETag.
const (
	Save  WriteKind = "save"
	Pair  WriteKind = "pair" // two keys in a transaction
	Count WriteKind = "count"
)

// A Write is one write of a load. Its keys and values follow from what it is.
type Write struct {
	Run            string // of the load that writes: no two have the same
	Kind           WriteKind
	Writer, Number int // the number is the value
}

// keys are the keys that the write makes, or changes.
func (w Write) keys() []string {
	switch w.Kind {
	case Pair:
		tag := fmt.Sprintf("{%s-%d-%d}", w.Run, w.Writer, w.Number)
		return []string{tag + "a", tag + "b"}
	case Count:
		return []string{fmt.Sprintf("%s-%d-count", w.Run, w.Writer)}
	default:
		return []string{fmt.Sprintf("%s-%d-%d", w.Run, w.Writer, w.Number)}
	}
}

// A Verdict is what a writer was told.
type Verdict string

// The verdicts. A write without one is as unknown as one whose outcome was.
const (
	Acknowledged Verdict = "acknowledged"
	Refused      Verdict = "refused"
	Unknown      Verdict = "unknown"
	Wrong        Verdict = "wrong" // an error that no write should give
)

func verdictOf(err error) Verdict {
	switch {
	case err == nil:
		return Acknowledged
	case errors.Is(err, state.ErrOutcomeUnknown):
		return Unknown
	case errors.Is(err, state.ErrUnavailable):
		return Refused
	case errors.Is(err, context.DeadlineExceeded): // the deadline passed before the engine was asked
		return Refused
	default:
		return Wrong
	}
}

// A StateLedger knows what became of each write. It is safe for concurrent use.
type StateLedger struct {
	mu           sync.Mutex
	writes       map[Write]Verdict
	acknowledged int
	late         []string
	wrong        []error
}

// NewStateLedger returns an empty ledger.
func NewStateLedger() *StateLedger { return &StateLedger{writes: map[Write]Verdict{}} }

// Begun enters that a write begins.
func (l *StateLedger) Begun(w Write) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes[w] = Unknown
}

// Ended enters what a writer was told, and how long after its deadline.
func (l *StateLedger) Ended(w Write, v Verdict, overdue time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writes[w] = v
	if v == Acknowledged {
		l.acknowledged++
	}
	if overdue > StateSlack {
		l.late = append(l.late, fmt.Sprintf("%+v: %s after its deadline, %s", w, overdue, v))
	}
}

// Fail enters an error that no call should give.
func (l *StateLedger) Fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, err)
}

// Wrong is what Fail entered.
func (l *StateLedger) Wrong() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.wrong[:min(len(l.wrong), 5)]...)
}

// Late describes up to ten calls that returned later than their deadline.
func (l *StateLedger) Late() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.late[:min(len(l.late), 10)])
}

// Settled is how many writes were acknowledged.
func (l *StateLedger) Settled() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acknowledged
}

// StateTotals are a StateLedger's sums, held against what the store has in the end.
type StateTotals struct {
	Sent, Acknowledged, Refused, Unknown int
	Made                                 int // of those unknown
	Lost                                 int // acknowledged, and not there
	Untrue                               int // refused, and there
	Half                                 int // transactions of which a part is there
	Twice                                int // counts that were made more than once
	Late                                 int
}

// Totals reads everything that was written and adds up.
func (l *StateLedger) Totals(ctx context.Context, store *state.Store[int]) (StateTotals, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := StateTotals{Sent: len(l.writes), Late: len(l.late)}
	found, err := l.read(ctx, store)
	if err != nil {
		return t, err
	}
	for w, v := range l.writes {
		switch v {
		case Acknowledged:
			t.Acknowledged++
		case Refused:
			t.Refused++
		case Unknown, Wrong:
			t.Unknown++
		}
		if w.Kind == Count {
			continue
		}
		there := 0
		keys := w.keys()
		for _, key := range keys {
			if e := found[key]; e.Found && e.Value == w.Number {
				there++
			}
		}
		t.judge(v, there, len(keys))
	}
	l.judgeCounts(&t, found)
	return t, nil
}

func (t *StateTotals) judge(v Verdict, there, of int) {
	if there > 0 && there < of {
		t.Half++
	}
	switch {
	case v == Acknowledged && there < of:
		t.Lost++
	case v == Refused && there > 0:
		t.Untrue++
	case v != Acknowledged && v != Refused && there == of:
		t.Made++
	}
}

// judgeCounts looks at the keys that are counted up: the value must have reached the last that was acknowledged, it is the value of a write
// that was not refused, and there are as many versions as counts.
func (l *StateLedger) judgeCounts(t *StateTotals, found map[string]state.Entry[int]) {
	last := map[string]int{}
	for w, v := range l.writes {
		if w.Kind == Count && v == Acknowledged {
			last[w.keys()[0]] = max(last[w.keys()[0]], w.Number)
		}
	}
	for key, n := range last {
		e := found[key]
		t.Lost += max(n-e.Value, 0)
		t.Twice += max(int(e.Version)-e.Value, 0)
	}
	for w, v := range l.writes {
		if e := found[w.keys()[0]]; w.Kind == Count && e.Value == w.Number {
			switch v {
			case Refused:
				t.Untrue++
			case Unknown, Wrong:
				t.Made++
			case Acknowledged:
			}
		}
	}
}

func (l *StateLedger) read(ctx context.Context, store *state.Store[int]) (map[string]state.Entry[int], error) {
	wanted := map[string]bool{}
	for w := range l.writes {
		for _, key := range w.keys() {
			wanted[key] = true
		}
	}
	keys := make([]string, 0, len(wanted))
	for key := range wanted {
		keys = append(keys, key)
	}
	found := make(map[string]state.Entry[int], len(keys))
	for part := range slices.Chunk(keys, state.MaxBulkKeys) {
		entries, err := store.GetBulk(ctx, part)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			found[e.Key] = e
		}
	}
	return found, nil
}
