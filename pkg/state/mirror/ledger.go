package mirror

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"
)

// Kept is how far back a Ledger can report.
const Kept = time.Hour

// slot is what reports are exact to.
const slot = 10 * time.Second

// recent is how many differences a report lists.
const recent = 20

// A Ledger keeps what the mirrors of a process have found, by store, for as long as Kept. It is safe for concurrent use.
type Ledger struct {
	mu     sync.Mutex
	stores map[string]*account
	now    func() time.Time
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger { return &Ledger{stores: map[string]*account{}, now: time.Now} }

// An account is what is known of one store.
type account struct {
	to      string
	sample  float64
	writes  bool
	since   time.Time
	slots   [Kept / slot]tally
	recent  []Found
	failure string
	failed  time.Time
	waiting func() int
	pending func() int

	uncarried int64 // since then, whatever the span: nothing brings these keys in line by itself
}

// A tally is what happened in one slot of time.
type tally struct {
	at                               int64 // which slot since the beginning of time
	compared, busy, skipped, carried int64
	failures                         int64
	reasons                          map[Reason]int64
}

// Found is one difference.
type Found struct {
	Key    string    `json:"key"` // a digest, see Digest
	Reason Reason    `json:"reason"`
	At     time.Time `json:"at"`
}

// Digest stands for a key in logs and reports, where keys may be of persons: the first 12 hexadecimal digits of its SHA-256.
func Digest(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:6])
}

// A Report is what was found of a store in a span of time that ends now.
type Report struct {
	Store   string        `json:"store"`
	To      string        `json:"to"`     // the backend of the other place
	Sample  float64       `json:"sample"` // share of the keys in use that are compared
	Writes  bool          `json:"writes"` // changes are carried to the other place
	Since   time.Time     `json:"since"`  // when the process began to compare
	Window  time.Duration `json:"-"`
	Seconds float64       `json:"windowSeconds"`

	Compared  int64            `json:"compared"`  // keys, those that differ included
	Different int64            `json:"different"` // keys that were not the same, and were not being written
	Reasons   map[Reason]int64 `json:"reasons"`   // of them
	Busy      int64            `json:"busy"`      // keys that were written each time they were looked at: not compared
	Skipped   int64            `json:"skipped"`   // keys that did not fit into the queue: not compared
	Failures  int64            `json:"failures"`  // keys that could not be read in one of the places: not compared
	Carried   int64            `json:"carried"`   // changed keys that were carried
	Uncarried int64            `json:"uncarried"` // changed keys that were not, since the process began to compare
	Waiting   int              `json:"waiting"`   // keys in the queue now
	Pending   int              `json:"pending"`   // changed keys that wait to be carried, where the other place did not take the last ones or lags

	Recent      []Found    `json:"recent"` // the last differences, the newest first, whatever the span
	LastFailure string     `json:"lastFailure,omitempty"`
	FailedAt    *time.Time `json:"failedAt,omitempty"`
}

// Stores are the names of the stores that have a counterpart, once they were opened.
func (l *Ledger) Stores() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.stores))
}

// Report tells of a store in the last window, at most Kept; false: it has no counterpart, or was not opened yet.
func (l *Ledger) Report(store string, window time.Duration) (Report, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := l.stores[store]
	if !ok {
		return Report{}, false
	}
	window = min(max(window, slot), Kept)
	r := Report{
		Store: store, To: a.to, Sample: a.sample, Writes: a.writes, Since: a.since, Window: window, Seconds: window.Seconds(),
		Reasons: map[Reason]int64{}, Uncarried: a.uncarried, Waiting: a.waiting(), Pending: a.pending(), Recent: slices.Clone(a.recent), LastFailure: a.failure,
	}
	slices.Reverse(r.Recent)
	if !a.failed.IsZero() {
		failed := a.failed
		r.FailedAt = &failed
	}
	first := slotOf(l.now().Add(-window))
	for i := range a.slots {
		t := &a.slots[i]
		if t.at < first {
			continue
		}
		r.Compared += t.compared
		r.Busy += t.busy
		r.Skipped += t.skipped
		r.Failures += t.failures
		r.Carried += t.carried
		for reason, n := range t.reasons {
			r.Reasons[reason] += n
			r.Different += n
		}
	}
	return r, true
}

func slotOf(t time.Time) int64 { return t.Unix() / int64(slot/time.Second) }

// open begins the account of a store.
func (l *Ledger) open(store string, c *Counterpart, waiting, pending func() int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stores[store] = &account{to: c.Driver.Backend(), sample: c.Sample, writes: c.Writes, since: l.now(), waiting: waiting, pending: pending}
}

// add changes the present slot of a store.
func (l *Ledger) add(store string, change func(a *account, t *tally)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.stores[store]
	at := slotOf(l.now())
	t := &a.slots[at%int64(len(a.slots))]
	if t.at != at {
		*t = tally{at: at, reasons: map[Reason]int64{}}
	}
	change(a, t)
}

// differs enters a difference.
func (l *Ledger) differs(store, key string, reason Reason) {
	l.add(store, func(a *account, t *tally) {
		t.compared++
		t.reasons[reason]++
		if len(a.recent) == recent {
			a.recent = a.recent[1:]
		}
		a.recent = append(a.recent, Found{Key: Digest(key), Reason: reason, At: l.now().UTC()})
	})
}
