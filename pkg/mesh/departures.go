package mesh

import (
	"maps"
	"time"
)

// departures are the instances that left a moment ago. A feed promises no order: what was said of one before it left may be heard after,
// and does not bring it back. They never change; others are made of them.
type departures map[[2]string]departure

type departure struct {
	at    time.Time // by the clock of whoever wrote it
	heard time.Time // by ours
}

// before reports whether something was said of an instance before it left.
func (d departures) before(e *Endpoint) bool {
	left, known := d[[2]string{e.AppID, e.InstanceID}]
	return known && !e.LastSeen.IsZero() && !e.LastSeen.After(left.at)
}

// with adds one that left, unless that is known.
func (d departures) with(e *Endpoint) (next departures, added bool) {
	if e.LastSeen.IsZero() || d.before(e) {
		return d, false
	}
	next = d.recent()
	next[[2]string{e.AppID, e.InstanceID}] = departure{at: e.LastSeen, heard: time.Now()}
	return next, true
}

// recent are those of which something may still be on its way.
func (d departures) recent() departures {
	next := make(departures, len(d)+1)
	maps.Copy(next, d)
	maps.DeleteFunc(next, func(_ [2]string, left departure) bool { return time.Since(left.heard) >= GoneAfter })
	return next
}
