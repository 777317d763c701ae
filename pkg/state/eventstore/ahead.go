package eventstore

// An ahead is the page of a partition that is fetched while the one before is handled. One goroutine uses it.
type ahead struct {
	from int64
	got  chan page // nil: none is on its way
}

// fetch reads a page, or takes the one that was on its way.
func (p *part) fetch(scope Range) (events []Recorded, more bool, err error) {
	got := p.ahead.wait()
	early := got != nil && got.err == nil && p.ahead.from == scope.From // otherwise an event was not handled, and comes again
	if !early {
		got = p.read(scope)
	}
	if got.err == nil && got.more && len(got.events) > 0 {
		limit := scope.Limit
		scope = scope.after(got.events)
		scope.Limit = limit
		p.dense = scope.Dense
		p.ahead = ahead{from: scope.From, got: make(chan page, 1)}
		go func(to chan<- page) { to <- *p.read(scope) }(p.ahead.got)
	}
	if got.err == nil {
		got.err = p.sub.store.open(p.ctx, got.events)
	}
	return got.events, got.more || early, got.err // what came since the page was read gave its hint then
}

// read decrypts nothing yet: what is erased while the page waits is not shown.
func (p *part) read(scope Range) *page {
	var got page
	got.events, got.more, got.err = p.sub.store.engine.Read(p.ctx, scope)
	return &got
}

// wait returns what was on its way, if anything was.
func (a *ahead) wait() *page {
	if a.got == nil {
		return nil
	}
	got := <-a.got
	a.got = nil
	return &got
}
