package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A part is a partition that this consumer has a lease of. One goroutine handles its events, another one renews the lease.
type part struct {
	sub   *Subscription
	lease Lease

	ctx     context.Context //nolint:containedctx // of the handler: it ends when the lease does
	cancel  context.CancelCauseFunc
	expire  *time.Timer  // ends ctx when the lease was not renewed in time
	left    atomic.Bool  // it is to be given to another consumer
	renewed atomic.Int64 // when the last renewal began, in nanoseconds since the part was claimed
	begun   time.Time

	position int64  // up to which everything is handled, in this process
	trail    *Trail // what was read and is not entered
	parked   map[StreamID]Parked
	looked   time.Time // when parked was read
	ahead    ahead
	dense    bool      // most of the log's events are those of the subscription's category
	pipeline *pipeline // of events that are begun; nil: they are handled
}

// start handles the events of a partition in goroutines of its own, and tells ended when they have ended. asked is from before the claim.
func (s *Subscription) start(lease Lease, asked time.Time, ended chan<- *part) *part {
	p := &part{sub: s, lease: lease, begun: asked, position: lease.Position, trail: NewTrail(lease, s.cfg.scope())}
	if s.cfg.Begin != nil {
		p.pipeline = newPipeline(p)
	}
	p.ctx, p.cancel = context.WithCancelCause(s.ctx)
	p.expire = time.AfterFunc(time.Until(asked.Add(lease.Lives)), func() { p.cancel(ErrLeaseLost) })
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		p.keep()
	}()
	go func() {
		p.run()
		p.cancel(nil)
		p.ahead.wait()
		if p.pipeline != nil {
			p.pipeline.abandon()
		}
		p.expire.Stop()
		<-kept
		s.metrics.forget(lease.Part)
		ended <- p
	}()
	return p
}

func (p *part) leaving() bool { return p.left.Load() || p.sub.stopping() || p.ctx.Err() != nil }

// holds reports whether the lease cannot have ended yet. A process that was stopped sees that before the timer has told it.
func (p *part) holds() bool {
	return time.Since(p.begun) < time.Duration(p.renewed.Load())+p.lease.Lives
}

// inTime is ErrLeaseLost once the lease could be another's.
func (p *part) inTime() error {
	if p.holds() {
		return nil
	}
	p.cancel(ErrLeaseLost)
	return ErrLeaseLost
}

// prolonged enters that the lease was renewed by what began then.
func (p *part) prolonged(asked time.Time) {
	p.renewed.Store(int64(asked.Sub(p.begun)))
	p.expire.Reset(time.Until(asked.Add(p.lease.Lives)))
}

// keep renews the lease while events are handled that take long, or none come.
func (p *part) keep() {
	lives := p.lease.Lives
	for wait(p.ctx, lives/6) {
		if time.Since(p.begun)-time.Duration(p.renewed.Load()) < lives/3 {
			continue
		}
		asked := time.Now()
		switch err := p.sub.store.engine.Renew(p.ctx, p.lease); {
		case err == nil:
			p.prolonged(asked)
		case errors.Is(err, ErrLeaseLost):
			p.cancel(ErrLeaseLost)
		default:
			p.sub.warn("a lease cannot be renewed, and will be tried again", err)
		}
	}
}

// run handles events until the partition is to be left, or lost.
func (p *part) run() {
	for !p.leaving() {
		news := p.sub.store.News() // before reading, so that no hint is missed
		more, err := p.step()
		switch {
		case gone(err):
			p.sub.warn("a partition was lost, and is claimed anew", err)
			return
		case errors.Is(err, errStopped):
			continue
		case err != nil:
			p.sub.warn("reading events failed, and will be tried again", err)
		case more:
			continue
		}
		poll := time.NewTimer(p.sub.cfg.Poll)
		select {
		case <-news:
		case <-poll.C:
		case <-p.ctx.Done():
		case <-p.sub.stop:
		}
		poll.Stop()
	}
	if p.pipeline != nil {
		p.pipeline.abandon()
	}
	if p.ctx.Err() != nil {
		return
	}
	if err := p.enter(); err != nil {
		p.sub.warn("the position cannot be entered", err)
		return
	}
	if err := p.sub.store.engine.Yield(p.ctx, p.lease); err != nil {
		p.sub.warn("a partition cannot be given up; others wait for its lease to end", err)
	}
}

// step handles the events of one page, and those of streams that were released.
func (p *part) step() (more bool, err error) {
	if p.pipeline != nil {
		return p.pipeline.flow()
	}
	if err := p.enter(); err != nil { // what failed to be entered before
		return false, err
	}
	if err := p.lookForParked(); err != nil {
		return false, err
	}
	scope := p.sub.cfg.scope()
	scope.From, scope.Limit, scope.Dense = p.position+1, max(pageEvents, p.sub.cfg.Batch), p.dense
	events, more, err := p.fetch(scope)
	if err != nil {
		return false, err
	}
	p.note(events)
	p.dense = p.dense && more // at the end nobody knows what comes
	if err := p.page(scope, events, more); err != nil {
		return false, err
	}
	if !more {
		err = p.enter()
		p.sub.metrics.caughtUp(p.lease.Part)
	}
	return more, err
}

// note has the trail know of a page.
func (p *part) note(events []Recorded) {
	for i := range events {
		p.trail.Add(&events[i])
	}
}

// page handles events, as many with one entry of the position as Batch says.
func (p *part) page(scope Range, events []Recorded, more bool) error {
	for len(events) > 0 && !p.leaving() {
		n := min(len(events), p.sub.cfg.Batch)
		batch := events[:n]
		events = events[n:]
		if !more {
			p.sub.metrics.behind(p.lease.Part, len(batch)+len(events), batch[0].RecordedAt)
		} else if head, err := p.sub.store.engine.Head(p.ctx); err == nil {
			p.sub.metrics.behind(p.lease.Part, int(head-batch[0].Position)+1, batch[0].RecordedAt)
		}
		if err := p.batch(scope, batch); err != nil {
			return err
		}
	}
	return nil
}

// batch handles a few events: together if the handler can, and each half of them if that fails.
func (p *part) batch(scope Range, events []Recorded) error {
	switch {
	case p.leaving():
		return nil
	case p.sub.cfg.Handle != nil:
		for _, e := range events {
			if p.leaving() {
				return nil
			}
			if err := p.one(e, scope.next(e)-1); err != nil {
				return err
			}
		}
		return p.enter()
	case len(events) == 1:
		return p.one(events[0], scope.next(events[0])-1)
	}
	done, err := p.together(scope, events)
	if done || err != nil {
		return err
	}
	half := len(events) / 2
	if err := p.batch(scope, events[:half]); err != nil {
		return err
	}
	return p.batch(scope, events[half:])
}

// mine reports whether an event is to be handled here and now.
func (p *part) mine(e *Recorded) bool {
	if p.sub.cfg.partOf(e.Stream) != p.lease.Part {
		return false
	}
	if parked, ok := p.parked[e.Stream]; ok && e.Version >= parked.Version {
		p.sub.metrics.skip(p.ctx)
		return false
	}
	return true
}

// together handles events in one step. When it fails, nothing is done, or nothing that counts, and they are to be handled in smaller ones.
func (p *part) together(scope Range, events []Recorded) (done bool, err error) {
	mine := make([]Recorded, 0, len(events))
	for i := range events {
		if _, parked := p.parked[events[i].Stream]; parked {
			return false, nil // rare; one by one it is counted
		}
		if p.mine(&events[i]) {
			mine = append(mine, events[i])
		}
	}
	err = p.handle(scope.next(events[len(events)-1])-1, mine)
	if gone(err) || p.ctx.Err() != nil {
		return false, p.lost(err)
	}
	if err == nil {
		p.sub.metrics.handle(p.ctx, len(mine))
	}
	return err == nil, nil
}

// one handles one event, as often as it needs, or parks its stream. Position is where the part is afterwards.
func (p *part) one(e Recorded, position int64) error {
	if !p.mine(&e) {
		p.position = position
		return nil
	}
	failure, err := p.attempts(e, func() error { return p.handle(position, []Recorded{e}) })
	if err != nil {
		return err
	}
	if failure == nil {
		p.position = position
		return nil
	}
	if err := p.park(e, failure); err != nil {
		return err
	}
	p.position = position
	return p.enter() // before what is behind it is handled: who follows next knows by the position that the event is late
}

// handle hands events to the handler, and enters where the part is then: in the handler's transaction, if it has one.
func (p *part) handle(position int64, events []Recorded) error {
	if len(events) > 0 && p.sub.cfg.transactional() {
		return p.advance(position, func(tx *sql.Tx) error { return p.sub.cfg.call(p.ctx, tx, events) })
	}
	if len(events) > 0 && p.sub.cfg.HandleBatch != nil {
		if err := p.onDisk(); err != nil {
			return err
		}
	}
	if len(events) > 0 {
		if err := p.sub.cfg.call(p.ctx, nil, events); err != nil {
			return err
		}
	}
	p.position = position
	if p.sub.cfg.Handle == nil {
		return p.enter()
	}
	return nil // every Batch events
}

// call hands one event to the handler, without a transaction and while it is in time.
func (p *part) call(ctx context.Context, e Recorded) error {
	if err := p.inTime(); err != nil {
		return err
	}
	return p.sub.cfg.call(ctx, nil, []Recorded{e})
}

func recovered(err *error) {
	if r := recover(); r != nil {
		*err = panicked(r)
	}
}

func panicked(r any) error { return fmt.Errorf("the handler panicked: %v", r) }

// attempts runs what handles an event, until it succeeds, or has failed often enough, which is the failure. The error is that of the lease.
func (p *part) attempts(e Recorded, handle func() error) (failure, err error) {
	pause := p.sub.cfg.Backoff
	for counted := 0; ; {
		failure = handle()
		switch {
		case failure == nil:
			p.sub.metrics.handle(p.ctx, 1)
			return nil, nil
		case gone(failure), p.ctx.Err() != nil:
			return nil, p.lost(failure)
		case errors.Is(failure, state.ErrUnavailable), errors.Is(failure, state.ErrOutcomeUnknown):
		default:
			counted++
		}
		p.sub.metrics.fail(p.ctx)
		if counted == p.sub.cfg.Attempts || errors.Is(failure, ErrPoison) {
			return failure, nil
		}
		p.sub.store.cfg.Logger.WarnContext(p.ctx, "an event could not be handled, and will be tried again",
			"subscription", p.sub.cfg.Name, "stream", e.Stream.String(), "version", e.Version, "type", e.Type, "attempt", counted, "error", failure)
		if !wait(p.ctx, pause) {
			return nil, p.lost(failure)
		}
		if p.leaving() {
			return nil, errStopped
		}
		pause = min(2*pause, 100*p.sub.cfg.Backoff)
	}
}

// errStopped ends the handling of a page whose event fails when the partition is to be left.
var errStopped = errors.New("the partition is left")

// errUncertain ends a part that may be further than this process knows: what it would handle next may have been handled. To claim it anew waits for the
// transaction of which that is not known, and tells where the part is.
var errUncertain = errors.New("it is not known whether events were handled")

// certain is the error of a transaction that handles events.
func certain(err error) error {
	if errors.Is(err, state.ErrOutcomeUnknown) {
		return fmt.Errorf("%w: %w", errUncertain, err)
	}
	return err
}

// gone reports whether a part cannot be gone on with.
func gone(err error) bool {
	return errors.Is(err, ErrLeaseLost) || errors.Is(err, errUncertain) || errors.Is(err, ErrSetBack)
}

// lost is the error of a part whose context has ended.
func (p *part) lost(err error) error {
	if cause := context.Cause(p.ctx); cause != nil {
		return errors.Join(cause, err)
	}
	return err
}

// advance enters a position that what is done in a transaction leads to.
func (p *part) advance(position int64, within func(tx *sql.Tx) error) error {
	asked, to := time.Now(), p.trail.To(position)
	var failed error
	err := p.sub.store.engine.Advance(p.ctx, p.lease, to, func(tx *sql.Tx) error {
		failed = within(tx)
		return failed
	})
	if err != nil {
		if failed != nil {
			return err // the handler's own, or that its database is away
		}
		return certain(err)
	}
	p.position = position
	p.trail.Arrived(to)
	p.prolonged(asked)
	return nil
}

// enter writes down the position.
func (p *part) enter() error {
	if p.position == p.trail.Entered() {
		return nil
	}
	return p.arrive()
}

// onDisk returns when the database cannot lose any more what was read, so that nothing is made of events that it then does not have.
func (p *part) onDisk() error {
	if p.trail.Sure() {
		return nil
	}
	return p.arrive()
}

// arrive enters the position, whether it has changed or not.
func (p *part) arrive() error {
	asked, to := time.Now(), p.trail.To(p.position)
	if err := p.sub.store.engine.Advance(p.ctx, p.lease, to, nil); err != nil {
		return err
	}
	p.trail.Arrived(to)
	p.prolonged(asked)
	return nil
}
