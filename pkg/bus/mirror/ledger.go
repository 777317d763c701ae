package mirror

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// A Side is one of the two ways.
type Side int

// The sides: the way that the program runs on, and the one that it is held against.
const (
	Here Side = iota
	There
)

func (s Side) other() Side { return 1 - s }

// Kept is how far back a Ledger can report.
const Kept = time.Hour

// slot is what reports are exact to.
const slot = 10 * time.Second

// recent is how many events a report names.
const recent = 20

// Config describes a Ledger.
type Config struct {
	// Patience is how long after an event was first seen it may show on the other side. Default: 30 s.
	Patience time.Duration
	// Late is how much later than on the other side an event may come without being late. Default: 5 s.
	Late time.Duration
	// Most bounds the events of a topic that are remembered at once. More are skipped, and counted. Default: 100 000.
	Most int
}

// remembered is for how many times Patience an event is known after it was counted, so that one that comes then is not a new one.
const remembered = 10

// A Ledger counts events by topic, side and id. It is safe for concurrent use.
type Ledger struct {
	cfg Config
	now func() time.Time

	mu     sync.Mutex
	topics map[string]*topic
}

// NewLedger returns an empty ledger.
func NewLedger(cfg Config) *Ledger {
	cfg.Patience = cmp.Or(cfg.Patience, 30*time.Second)
	cfg.Late = cmp.Or(cfg.Late, 5*time.Second)
	cfg.Most = cmp.Or(cfg.Most, 100_000)
	return &Ledger{cfg: cfg, now: time.Now, topics: map[string]*topic{}}
}

// A topic is what is known of one.
type topic struct {
	since  time.Time
	events map[string]*event
	order  []*event // by when they were first seen; the first ones may be counted already
	open   int      // from where in order they are not counted yet
	slots  [Kept / slot]tally
	recent []Found
}

type event struct {
	id    string
	first time.Time
	seen  [2]time.Time // by side; zero: not yet
}

// A tally is what was counted in one slot of time.
type tally struct {
	at                int64
	both, late, skips int64
	missing, doubled  [2]int64
}

// Found is one event that was not as it should be.
type Found struct {
	ID     string    `json:"id"`
	Reason string    `json:"reason"` // missing-here, missing-there, doubled-here, doubled-there, late
	At     time.Time `json:"at"`
}

// A Report is what was counted of a topic in a span of time that ends now.
type Report struct {
	Topic   string    `json:"topic"`
	Since   time.Time `json:"since"`
	Seconds float64   `json:"windowSeconds"`

	Both         int64 `json:"both"`         // events that both sides have seen
	MissingHere  int64 `json:"missingHere"`  // that only the other side has seen
	MissingThere int64 `json:"missingThere"` // that only this side has seen
	DoubledHere  int64 `json:"doubledHere"`  // copies too many
	DoubledThere int64 `json:"doubledThere"`
	Late         int64 `json:"late"`    // events that came late on one of the sides, after they were missing perhaps
	Waiting      int64 `json:"waiting"` // events that may still come on the other side
	Skipped      int64 `json:"skipped"` // events that were not counted, as there were too many at once

	Recent []Found `json:"recent"` // the last that were not as they should be, the newest first, whatever the span
}

// Compared is how many events were held against the other side.
func (r *Report) Compared() int64 { return r.Both + r.MissingHere + r.MissingThere }

// Reasons are the counts of what was not as it should be.
func (r *Report) Reasons() map[string]int64 {
	all := map[string]int64{"missing-here": r.MissingHere, "missing-there": r.MissingThere, "doubled-here": r.DoubledHere, "doubled-there": r.DoubledThere, "late": r.Late}
	maps.DeleteFunc(all, func(_ string, n int64) bool { return n == 0 })
	return all
}

// Watch begins a topic, so that it is reported before its first event.
func (l *Ledger) Watch(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.topic(name)
}

func (l *Ledger) topic(name string) *topic {
	t, ok := l.topics[name]
	if !ok {
		t = &topic{since: l.now(), events: map[string]*event{}}
		l.topics[name] = t
	}
	return t
}

// Topics are those that are counted, sorted.
func (l *Ledger) Topics() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.topics))
}

// Saw enters an event that a side has seen.
func (l *Ledger) Saw(name string, side Side, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	t := l.topic(name)
	l.settle(t, now)
	e, known := t.events[id]
	switch {
	case !known && len(t.events) >= l.cfg.Most:
		t.slot(now).skips++
		return
	case !known:
		e = &event{id: id, first: now}
		t.events[id], t.order = e, append(t.order, e)
	case !e.seen[side].IsZero():
		t.slot(now).doubled[side]++
		t.found(id, []string{"doubled-here", "doubled-there"}[side], now)
		return
	}
	e.seen[side] = now
	if other := e.seen[side.other()]; !other.IsZero() && now.Sub(other) > l.cfg.Late {
		t.slot(now).late++
		t.found(id, "late", now)
	}
}

// settle counts the events whose time is over, and forgets those that are counted for long.
func (l *Ledger) settle(t *topic, now time.Time) {
	for ; t.open < len(t.order) && now.Sub(t.order[t.open].first) >= l.cfg.Patience; t.open++ {
		e := t.order[t.open]
		switch {
		case e.seen[Here].IsZero():
			t.slot(now).missing[Here]++
			t.found(e.id, "missing-here", now)
		case e.seen[There].IsZero():
			t.slot(now).missing[There]++
			t.found(e.id, "missing-there", now)
		default:
			t.slot(now).both++
		}
	}
	gone := 0
	for gone < t.open && now.Sub(t.order[gone].first) >= remembered*l.cfg.Patience {
		delete(t.events, t.order[gone].id)
		gone++
	}
	t.order, t.open = t.order[gone:], t.open-gone
}

func (t *topic) slot(now time.Time) *tally {
	at := now.Unix() / int64(slot/time.Second)
	s := &t.slots[at%int64(len(t.slots))]
	if s.at != at {
		*s = tally{at: at}
	}
	return s
}

func (t *topic) found(id, reason string, now time.Time) {
	if len(t.recent) == recent {
		t.recent = t.recent[1:]
	}
	t.recent = append(t.recent, Found{ID: id, Reason: reason, At: now.UTC()})
}

// Report tells of a topic in the last window, at most Kept; false: it is not counted.
func (l *Ledger) Report(name string, window time.Duration) (Report, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.topics[name]
	if !ok {
		return Report{}, false
	}
	now := l.now()
	l.settle(t, now)
	window = min(max(window, slot), Kept)
	r := Report{Topic: name, Since: t.since, Seconds: window.Seconds(), Waiting: int64(len(t.order) - t.open), Recent: slices.Clone(t.recent)}
	slices.Reverse(r.Recent)
	first := now.Add(-window).Unix() / int64(slot/time.Second)
	for i := range t.slots {
		s := &t.slots[i]
		if s.at < first {
			continue
		}
		r.Both += s.both
		r.MissingHere += s.missing[Here]
		r.MissingThere += s.missing[There]
		r.DoubledHere += s.doubled[Here]
		r.DoubledThere += s.doubled[There]
		r.Late += s.late
		r.Skipped += s.skips
	}
	return r, true
}
