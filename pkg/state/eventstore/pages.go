package eventstore

import "context"

// pages are those of one reader. From the third on, a page is fetched while the one before is handled: who reads but a few events has no more than those fetched.
type pages struct {
	store *Store
	next  Range
	left  int // how many events are to be read yet; 0 at first: all
	count int

	ahead chan page // nil: none is on its way
}

type page struct {
	events []Recorded
	more   bool
	err    error
}

// fetch returns the next page, and whether there is another one. It is not called after an error, or when there is none.
func (p *pages) fetch(ctx context.Context) (events []Recorded, more bool, err error) {
	var got page
	if p.ahead != nil {
		got = <-p.ahead
		p.ahead = nil
	} else {
		got = p.read(ctx)
	}
	if got.err != nil {
		return nil, false, got.err
	}
	if more = p.move(got); more && p.count > 1 {
		p.ahead = make(chan page, 1)
		go func(to chan<- page) { to <- p.read(ctx) }(p.ahead)
	}
	return got.events, more, p.store.open(ctx, got.events)
}

// read does not change p, which has gone on when it runs ahead. Nothing is decrypted yet: what is erased while the page waits is not shown.
func (p *pages) read(ctx context.Context) (got page) {
	got.events, got.more, got.err = p.store.engine.Read(ctx, p.next)
	return got
}

// move makes next what follows a page, and reports whether that is anything.
func (p *pages) move(got page) bool {
	n := len(got.events)
	if n == 0 || !got.more || p.left > 0 && n >= p.left {
		return false
	}
	if p.left > 0 {
		p.left -= n
	}
	p.count++
	p.next = p.next.after(got.events)
	if p.left > 0 {
		p.next.Limit = min(p.next.Limit, p.left)
	}
	return p.next.From > 0
}

// close waits for what is on its way: to give it up would cost the connection.
func (p *pages) close() {
	if p.ahead != nil {
		<-p.ahead
	}
}

// after is the range of the page after one that was full.
func (r Range) after(events []Recorded) Range {
	first, last := events[0], events[len(events)-1]
	bytes := 0
	for i := range events {
		bytes += len(events[i].Data)
	}
	switch {
	case bytes > pageBytes || len(events) < r.Limit:
		r.Limit = max(len(events)/2, 1)
	case r.Limit < mostEvents:
		r.Limit *= 2
	}
	r.From = r.next(last)
	r.Dense = r.Category != "" && r.ID == "" && !r.Backward && last.Position-first.Position < 2*int64(len(events))
	return r
}
