package eventstore

import (
	"context"
	"database/sql"
	"strings"
	"time"
)

// maxFailure is how much of an error is kept, in bytes.
const maxFailure = 1000

// park sets the stream of an event aside.
func (p *part) park(e Recorded, failure error) error {
	text := strings.ToValidUTF8(failure.Error(), "\uFFFD")
	if len(text) > maxFailure {
		text = strings.ToValidUTF8(text[:maxFailure], "") // the cut may be within a letter
	}
	parked := Parked{Stream: e.Stream, Part: p.lease.Part, Version: e.Version, EventID: e.ID, Failure: text}
	if err := p.sub.store.engine.Park(p.ctx, p.lease, parked); err != nil {
		return err
	}
	p.parked[e.Stream] = parked
	p.sub.store.cfg.Logger.ErrorContext(p.ctx, "an event could not be handled; its stream is parked until it is released",
		"subscription", p.sub.cfg.Name, "stream", e.Stream.String(), "version", e.Version, "type", e.Type, "error", failure)
	return nil
}

// parkedDue reports whether it is time to look for streams that are set aside.
func (p *part) parkedDue() bool {
	return p.parked == nil || len(p.parked) > 0 && time.Since(p.looked) >= p.sub.cfg.Poll
}

// lookForParked reads which streams are set aside: at first, and while there are some as often as new events are looked for.
func (p *part) lookForParked() error {
	if !p.parkedDue() {
		return nil
	}
	all, err := p.sub.store.engine.Parked(p.ctx, p.sub.cfg.Name)
	if err != nil {
		return err
	}
	p.parked, p.looked = map[StreamID]Parked{}, time.Now()
	for _, parked := range all {
		if parked.Part == p.lease.Part {
			p.parked[parked.Stream] = parked
		}
	}
	for _, parked := range p.parked {
		if parked.Released {
			if err := p.replay(parked); err != nil {
				return err
			}
		}
	}
	return nil
}

// replay handles the events of a released stream, up to where the partition is. The partition waits meanwhile, so that the stream's order stays.
func (p *part) replay(parked Parked) error {
	if err := p.enter(); err != nil { // what is behind the position would be handled twice
		return err
	}
	scope := Range{Category: parked.Stream.Category, ID: parked.Stream.ID, From: parked.Version, Limit: pageEvents}
	place := p.sub.cfg.scope()
	for {
		events, more, err := p.sub.store.page(p.ctx, scope)
		if err != nil {
			return err
		}
		for _, e := range events {
			if place.next(e)-1 > p.position {
				more = false
				break // it comes by itself
			}
			if p.leaving() {
				return nil
			}
			if parkedAgain, err := p.replayOne(e); parkedAgain || err != nil {
				return err
			}
			scope.From = e.Version + 1
		}
		if !more || len(events) == 0 {
			break
		}
	}
	if err := p.sub.store.engine.Replayed(p.ctx, p.lease, parked.Stream, scope.From, true, nil); err != nil {
		return err
	}
	delete(p.parked, parked.Stream)
	return nil
}

// replayOne handles an event and enters that; one that fails again parks the stream there.
func (p *part) replayOne(e Recorded) (parkedAgain bool, err error) {
	failure, err := p.attempts(e, func() error {
		if !p.sub.cfg.transactional() {
			return p.call(context.WithValue(p.ctx, releasedKey{}, true), e)
		}
		var failed error
		err := p.sub.store.engine.Replayed(p.ctx, p.lease, e.Stream, e.Version+1, false, func(tx *sql.Tx) error {
			failed = p.sub.cfg.call(context.WithValue(p.ctx, releasedKey{}, true), tx, []Recorded{e})
			return failed
		})
		if failed != nil {
			return err
		}
		return certain(err)
	})
	switch {
	case err != nil:
		return false, err
	case failure != nil:
		return true, p.park(e, failure)
	case !p.sub.cfg.transactional():
		return false, p.sub.store.engine.Replayed(p.ctx, p.lease, e.Stream, e.Version+1, false, nil)
	default:
		return false, nil
	}
}

type releasedKey struct{}

// Released reports of a handler's context whether the handler is called for an event of a stream that was set aside: later events of other streams
// were handled before it.
func Released(ctx context.Context) bool { return ctx.Value(releasedKey{}) != nil }
