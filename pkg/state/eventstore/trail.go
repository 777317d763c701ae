package eventstore

import "sort"

// A Trail is what a consumer has read of the log and is not sure of. Between reading and entering, the database may be killed, and lose what it had shown and not yet
// written: the consumer would enter a position at which there is another event by then, which nobody would handle. One goroutine uses it.
type Trail struct {
	scope   Range
	entered int64
	sure    int64 // position of the log up to which nothing is lost
	after   int64 // behind which what was read is not sure: the place of the last event that is, or to which all was handled before
	places  []Place
}

// NewTrail begins one with a lease. Scope has the category and id of what is read: all of that, of the lease's part or not.
func NewTrail(l Lease, scope Range) *Trail {
	return &Trail{scope: Range{Category: scope.Category, ID: scope.ID}, entered: l.Position, sure: l.Sure, after: l.Position}
}

// Entered is the position that was entered last.
func (t *Trail) Entered() int64 { return t.entered }

// Sure reports whether nothing that was read can be lost.
func (t *Trail) Sure() bool { return len(t.places) == 0 }

// Add notes an event that was read. One that is read again takes the place of what was read from there on.
func (t *Trail) Add(e *Recorded) {
	at := t.scope.next(*e) - 1
	if at <= t.after {
		return
	}
	t.places = t.places[:sort.Search(len(t.places), func(i int) bool { return t.places[i].At >= at })]
	if e.Position <= t.sure {
		t.after = at
		return
	}
	t.places = append(t.places, Place{At: at, ID: e.ID})
}

// To is the way to a position: what was read up to now has to be there.
func (t *Trail) To(position int64) Advance {
	return Advance{Entered: t.entered, Position: position, Scope: t.scope, After: t.after, Read: t.places}
}

// Arrived notes that an engine has made the advance, which To has returned: then what was read by then is on disk.
func (t *Trail) Arrived(a Advance) {
	t.entered = a.Position
	if n := len(a.Read); n > 0 {
		t.after = a.Read[n-1].At
		t.places = append(t.places[:0], t.places[n:]...)
	}
}
