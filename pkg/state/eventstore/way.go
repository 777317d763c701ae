package eventstore

import "sort"

// A way is what a part has read of the log and not yet entered. Between reading and entering the database may be killed, and lose what it had shown and not yet
// written: the part would enter a position at which there is another event by then, which nobody would handle.
type way struct {
	sure   int64 // position of the log up to which nothing is lost
	after  int64 // the place of the last event that was sure
	places []Place
}

// add enters a page. What was read before from its beginning on is read anew.
func (w *way) add(page Range, events []Recorded) {
	w.places = w.places[:w.until(page.From-1)]
	for i := range events {
		at := page.next(events[i]) - 1
		if events[i].Position <= w.sure {
			w.after = at
			continue
		}
		w.places = append(w.places, Place{At: at, ID: events[i].ID})
	}
}

// until is how many places are up to one.
func (w *way) until(at int64) int {
	return sort.Search(len(w.places), func(i int) bool { return w.places[i].At > at })
}

// to is the way of a part to a position.
func (p *part) to(position int64) Advance {
	return Advance{Entered: p.entered, Position: position, Read: p.way.places[:p.way.until(position)], After: max(p.entered, p.way.after), Scope: p.sub.cfg.scope()}
}

// arrived notes that the position is entered.
func (p *part) arrived() {
	p.entered = p.position
	p.way.places = append(p.way.places[:0], p.way.places[p.way.until(p.position):]...)
}
