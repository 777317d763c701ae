package eventstore

import (
	"cmp"
	"slices"
	"time"
)

// readAhead bounds what a pipeline has read and not yet handled: so many times InFlight events, and so many bytes of them.
const (
	readAhead      = 4
	readAheadBytes = 16 << 20
)

// A pipeline has many events of a partition under way at a time, at most one of each stream: an event is begun when the one before it in its
// stream has ended well or is parked, and so is not seen before it, whatever is lost on the way. The position follows the first event that has
// not ended. After a failure nothing more is begun until what failed is handled. One goroutine owns it.
type pipeline struct {
	p     *part
	read  int64     // the position up to which events were read
	ahead []*flight // what was read and lies behind p.position, in order; the first of them has not ended
	bytes int       // of them

	waiting  map[StreamID][]*flight // by stream with a first event that has not ended: those behind it
	ready    []*flight              // whose turn it is
	underWay []*flight              // in the order in which they were begun
	failed   []*flight
	passed   int // events since the position was entered
}

// A flight is an event on its way.
type flight struct {
	event    Recorded
	position int64 // where the part is when this and all before have ended
	end      func() error
	failure  error
	ended    bool
}

func newPipeline(p *part) *pipeline {
	return &pipeline{p: p, read: p.position, waiting: map[StreamID][]*flight{}}
}

// flow is step for events that are begun. When it fails, what is under way stays so, and is gone on with by the next call.
func (l *pipeline) flow() (more bool, err error) {
	p := l.p
	if p.parkedDue() {
		if err := l.drain(); err != nil { // what is replayed is in order with what is not
			return false, err
		}
		if err := p.lookForParked(); err != nil {
			return false, err
		}
	}
	scope := p.sub.cfg.scope()
	scope.From, scope.Limit = l.read+1, pageEvents
	events, more, err := p.sub.store.page(p.ctx, scope)
	if err != nil {
		return false, err
	}
	p.note(events)
	l.measure(events, more)
	for _, e := range events {
		for l.full() {
			if err := l.turn(); err != nil {
				return false, err
			}
		}
		if p.leaving() {
			return false, nil
		}
		l.add(e, scope.next(e)-1)
		if err := l.begin(); err != nil {
			return false, err
		}
	}
	if more {
		return true, nil
	}
	if err := l.drain(); err != nil {
		return false, err
	}
	err = p.enter()
	p.sub.metrics.caughtUp(p.lease.Part)
	return false, err
}

// measure tells how much there is to do.
func (l *pipeline) measure(events []Recorded, more bool) {
	first := l.p.position + 1
	count := len(l.ahead) + len(events)
	if count == 0 {
		return
	}
	var since time.Time
	if len(l.ahead) > 0 {
		since = l.ahead[0].event.RecordedAt
	} else {
		since = events[0].RecordedAt
	}
	if more {
		if head, err := l.p.sub.store.engine.Head(l.p.ctx); err == nil {
			count = int(head - first + 1)
		}
	}
	l.p.sub.metrics.behind(l.p.lease.Part, count, since)
}

// full reports whether something has to end before more is begun.
func (l *pipeline) full() bool {
	most := l.p.sub.cfg.InFlight
	return len(l.underWay) >= most || len(l.failed) > 0 || len(l.ahead) >= readAhead*most || l.bytes > readAheadBytes
}

// add enters an event that was read. Those of another part need nothing to be done.
func (l *pipeline) add(e Recorded, position int64) {
	f := &flight{event: e, position: position}
	l.read = position
	l.ahead = append(l.ahead, f)
	l.bytes += len(e.Data)
	if behind, busy := l.waiting[e.Stream]; busy {
		l.waiting[e.Stream] = append(behind, f)
		return
	}
	l.waiting[e.Stream] = nil
	l.ready = append(l.ready, f)
}

// begin begins what may be begun. No event is once the lease could be another's, whatever the clocks of this process did meanwhile.
func (l *pipeline) begin() error {
	p := l.p
	for len(l.ready) > 0 && len(l.underWay) < p.sub.cfg.InFlight && len(l.failed) == 0 && !p.leaving() {
		if err := p.inTime(); err != nil {
			return err
		}
		f := l.ready[0]
		l.ready = l.ready[1:]
		if !p.mine(&f.event) {
			if err := l.over(f); err != nil {
				return err
			}
			continue
		}
		f.end = p.begin(f.event)
		l.underWay = append(l.underWay, f)
	}
	return nil
}

// turn has one event end, and begins those that may be begun then.
func (l *pipeline) turn() error {
	if len(l.underWay) > 0 {
		if err := l.land(); err != nil {
			return err
		}
	}
	if l.p.leaving() {
		return errStopped
	}
	if len(l.failed) > 0 {
		if err := l.mend(); err != nil {
			return err
		}
	}
	return l.begin()
}

// drain returns when nothing is on its way any more.
func (l *pipeline) drain() error {
	for len(l.ahead) > 0 {
		if err := l.turn(); err != nil {
			return err
		}
	}
	return nil
}

// abandon waits for what is under way, and begins nothing more.
func (l *pipeline) abandon() {
	for len(l.underWay) > 0 {
		if err := l.land(); err != nil {
			l.p.sub.warn("the position cannot be entered", err)
		}
	}
}

// land waits for the event that was begun first.
func (l *pipeline) land() error {
	f := l.underWay[0]
	l.underWay = l.underWay[1:]
	f.failure = ending(f.end)
	if f.failure == nil {
		l.p.sub.metrics.handle(l.p.ctx, 1)
		return l.over(f)
	}
	l.failed = append(l.failed, f)
	return nil
}

// mend handles what has failed, one by one in order, when nothing is under way any more.
func (l *pipeline) mend() error {
	for len(l.underWay) > 0 {
		if err := l.land(); err != nil {
			return err
		}
	}
	slices.SortFunc(l.failed, func(a, b *flight) int { return cmp.Compare(a.position, b.position) })
	for len(l.failed) > 0 {
		f := l.failed[0]
		first := f.failure
		failure, err := l.p.attempts(f.event, func() error {
			if err := first; err != nil {
				first = nil
				return err
			}
			return l.p.call(l.p.ctx, f.event)
		})
		if err != nil {
			return err
		}
		if failure != nil {
			if err := l.p.park(f.event, failure); err != nil {
				return err
			}
		}
		l.failed = l.failed[1:]
		if err := l.over(f); err != nil {
			return err
		}
	}
	return nil
}

// over enters that nothing more is to be done for an event: the next one of its stream has its turn, and the position follows.
func (l *pipeline) over(f *flight) error {
	f.ended = true
	if behind := l.waiting[f.event.Stream]; len(behind) > 0 {
		l.ready = append(l.ready, behind[0])
		l.waiting[f.event.Stream] = behind[1:]
	} else {
		delete(l.waiting, f.event.Stream)
	}
	for len(l.ahead) > 0 && l.ahead[0].ended {
		l.p.position = l.ahead[0].position
		l.bytes -= len(l.ahead[0].event.Data)
		l.ahead = l.ahead[1:]
		l.passed++
	}
	select {
	case <-l.p.ctx.Done(): // the lease is over, and so is entering
		return nil
	default:
	}
	if l.passed < l.p.sub.cfg.Batch {
		return nil
	}
	if err := l.p.enter(); err != nil {
		return err
	}
	l.passed = 0
	return nil
}

func ending(end func() error) (err error) {
	defer recovered(&err)
	return end()
}

// begin calls the function that begins to handle an event; that it panics is a failure like another.
func (p *part) begin(e Recorded) (end func() error) {
	defer func() {
		if r := recover(); r != nil {
			end = func() error { return panicked(r) }
		}
	}()
	return p.sub.cfg.Begin(p.ctx, e)
}
