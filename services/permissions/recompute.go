package permissions

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"sync"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

const (
	pageSize    = 500 // sessions that are read, and written, at once
	pagesAtOnce = 4
	wavePages   = 16 // whose sessions are held in memory until each has been told by itself
)

// recomputeAll computes what all sessions may call, page by page, and sends what has changed. What changes meanwhile to a session is not
// held up by it: whichever of the two is later has read what the other one wrote.
func (s *Service) recomputeAll(ctx context.Context) (sent int, err error) {
	select { // one after another: they would only lose races against each other
	case s.recomputing <- struct{}{}:
		defer func() { <-s.recomputing }()
	case <-ctx.Done():
		return 0, unavailable(context.Cause(ctx))
	}
	store, err := state.Open[entry](ctx, s.cfg.Factory, SessionStore)
	if err != nil {
		return 0, err
	}
	r := round{Service: s, store: store, room: make(chan struct{}, pagesAtOnce)}
	err = s.index.shards(ctx, func(some []state.Entry[shard]) error {
		var entered []indexed
		for _, entry := range some {
			for id, at := range entry.Value {
				entered = append(entered, indexed{id, at})
			}
		}
		for page := range slices.Chunk(entered, pageSize) {
			if err := r.begin(ctx, page); err != nil {
				return err
			}
		}
		return nil
	})
	err = errors.Join(err, r.settle(ctx))
	return r.sent, err
}

// A round is over all sessions, in waves. Of each wave, all who hold connections are told first, by a few events of many sessions. Those
// who listen for each session are told then: an event for each takes the broker longer than all else, and would hold up the others. Last,
// it is noted as sent: who dies in between sends both again.
type round struct {
	*Service
	store *state.Store[entry]
	room  chan struct{} // for pages
	wave  []*recomputation
	begun sync.WaitGroup // those of the wave that are being computed
	sent  int
}

// begin computes what the sessions of a page may call, and tells those who listen for many. It ends the wave before, if that is full.
func (r *round) begin(ctx context.Context, page []indexed) error {
	if len(r.wave) == wavePages {
		if err := r.settle(ctx); err != nil {
			return err
		}
	}
	p := &recomputation{Service: r.Service, store: r.store, left: page}
	r.wave = append(r.wave, p)
	r.atOnce(&r.begun, func() { p.err = p.announce(ctx) })
	return nil
}

// settle tells those who listen for each session of the wave, notes it, and forgets sessions that are gone.
func (r *round) settle(ctx context.Context) error {
	r.begun.Wait()
	var settling sync.WaitGroup
	for _, p := range r.wave {
		if p.err == nil {
			r.atOnce(&settling, func() { p.err = p.settle(ctx) })
		}
	}
	settling.Wait()
	var errs []error
	var gone []indexed
	for _, p := range r.wave {
		r.sent += p.sent
		errs, gone = append(errs, p.err), append(gone, p.gone...)
	}
	r.wave = nil
	return errors.Join(append(errs, r.forget(ctx, gone))...)
}

// atOnce does something beside others, when there is room.
func (r *round) atOnce(group *sync.WaitGroup, do func()) {
	r.room <- struct{}{}
	group.Go(func() {
		defer func() { <-r.room }()
		do()
	})
}

// forget takes sessions that are gone out of the index.
func (s *Service) forget(ctx context.Context, gone []indexed) error {
	from := map[string]shard{}
	for _, of := range gone {
		key := shardOf(of.sessionID)
		if from[key] == nil {
			from[key] = shard{}
		}
		from[key][of.sessionID] = of.at
	}
	var errs []error
	for key, missing := range from {
		errs = append(errs, s.index.leave(ctx, key, missing))
	}
	return errors.Join(errs...)
}

// A recomputation is of some sessions, whose capabilities are computed anew.
type recomputation struct {
	*Service
	store *state.Store[entry]
	left  []indexed // that are to be computed
	sent  int
	gone  []indexed // found missing in any try: a later one looks only at those that were lost
	err   error

	seen      string // the ETag of the catalogue
	audiences map[string]*audience
	items     []state.Item[entry] // that are to be written when all have been told
}

// announce computes what the sessions may call from now on, and tells it by one event to each audience.
func (p *recomputation) announce(ctx context.Context) error {
	c, seen, err := p.catalogue(ctx)
	if err != nil {
		return err
	}
	p.seen = seen
	if err := p.compute(ctx, c); err != nil {
		return err
	}
	return p.publishAll(ctx, events.TopicPermissionsCapabilitiesChanged, p.toMany)
}

// settle tells what was announced by one event to each session, and writes down that it was sent. What another process has changed meanwhile
// is computed anew.
func (p *recomputation) settle(ctx context.Context) error {
	announced := true
	return state.RetryOnConflict(ctx, func() error {
		if !announced {
			if err := p.announce(ctx); err != nil {
				return err
			}
		}
		announced = false
		if len(p.items) == 0 {
			return nil
		}
		if err := p.publishAll(ctx, events.TopicPermissionsSessionCapabilities, p.toEach); err != nil {
			return err
		}
		return p.write(ctx)
	})
}

// write notes what was sent. ErrConflict: some sessions are left.
func (p *recomputation) write(ctx context.Context) error {
	results, err := p.store.SaveBulk(ctx, p.items)
	if err != nil {
		return err
	}
	failed := map[string]bool{}
	var errs []error
	for i, r := range results {
		id := p.items[i].Key[len(sessionKey("")):]
		if r.Err != nil {
			failed[id], errs = true, append(errs, r.Err)
		}
	}
	if _, now, err := p.catalogue(ctx); err != nil || now != p.seen {
		// What was written may be of an older catalogue than what it replaced: all are computed again.
		return cmp.Or(err, state.ErrConflict)
	}
	p.left = slices.DeleteFunc(slices.Clone(p.left), func(of indexed) bool { return !failed[of.sessionID] })
	return errors.Join(errs...)
}

// compute finds what each session may call, where it is something else than was sent last. The version is of the catalogue and the session,
// and both are written down: so nothing of the session has to be before it is sent.
func (p *recomputation) compute(ctx context.Context, c catalogue) error {
	keys := make([]string, len(p.left))
	for i, of := range p.left {
		keys[i] = sessionKey(of.sessionID)
	}
	kept, err := p.store.GetBulk(ctx, keys)
	if err != nil {
		return err
	}
	p.items, p.audiences = nil, map[string]*audience{}
	for i, of := range p.left {
		if !kept[i].Found {
			p.gone = append(p.gone, of)
			continue
		}
		e := &kept[i].Value
		alike := e.signature()
		some, known := p.audiences[alike]
		if !known {
			some = &audience{allowance: computed(c.allows(e))}
			p.audiences[alike] = some
		}
		if e.differs(some.allowance, false) {
			e.Digest, e.Seen, e.Untold = some.digest, c.Version, false
			some.sessions = append(some.sessions, events.SessionVersion{SessionID: of.sessionID, Version: c.Version + e.Version})
			p.items = append(p.items, state.Item[entry]{Key: keys[i], Value: *e, ETag: &kept[i].ETag, Expiry: state.Keep})
		}
	}
	p.sent += len(p.items)
	return nil
}

// An audience is sessions with the same roles and states, which may call the same.
type audience struct {
	allowance
	sessions []events.SessionVersion // that are told
}

// toMany are events of many sessions.
func (p *recomputation) toMany(yield func(e bus.Event, key string) bool) {
	for _, some := range p.audiences {
		if len(some.sessions) > 0 && !yield(&events.CapabilitiesChangedEvent{Sessions: some.sessions, Capabilities: some.capabilities}, "") {
			return
		}
	}
}

// toEach are the same for each session.
func (p *recomputation) toEach(yield func(e bus.Event, key string) bool) {
	for _, some := range p.audiences {
		for _, of := range some.sessions {
			if !yield(&events.SessionCapabilitiesEvent{SessionID: of.SessionID, Version: of.Version, Capabilities: some.capabilities}, of.SessionID) {
				return
			}
		}
	}
}

// publishAll publishes events, each with its partition key, and returns when the broker has them all.
func (s *Service) publishAll(ctx context.Context, topic string, all iter.Seq2[bus.Event, string]) error {
	var publications []*bus.Publication
	var errs []error
	for e, key := range all {
		publication, err := s.cfg.Bus.PublishAsync(ctx, topic, e, bus.PublishOptions{PartitionKey: key})
		if err != nil {
			errs = append(errs, err)
			break
		}
		publications = append(publications, publication)
	}
	for _, sent := range publications {
		errs = append(errs, sent.Wait())
	}
	return unavailable(errors.Join(errs...))
}
