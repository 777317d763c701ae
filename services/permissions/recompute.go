package permissions

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

const (
	pageSize    = 500 // sessions that are read, and written, at once
	pagesAtOnce = 4
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
		r.begin(ctx, some)
		return r.failed()
	})
	r.parts.Wait()
	return r.sent, cmp.Or(r.err, err)
}

// A round is over all sessions. Pages of several parts of the index are in work at once: a page that is sent waits for the broker to have it on
// disk, which takes longer than all else, and the next ones are read and sent meanwhile.
type round struct {
	*Service
	store *state.Store[entry]
	room  chan struct{} // for pages
	parts sync.WaitGroup

	mu   sync.Mutex
	sent int
	err  error
}

// begin computes what the sessions of some shards may call. It returns when the last page of them has begun.
func (r *round) begin(ctx context.Context, some []state.Entry[shard]) {
	var ids []string
	for _, entry := range some {
		for id := range entry.Value {
			ids = append(ids, id)
		}
	}
	var pages sync.WaitGroup
	var gone []string // r.mu guards it
	for page := range slices.Chunk(ids, pageSize) {
		r.room <- struct{}{}
		pages.Go(func() {
			defer func() { <-r.room }()
			p := recomputation{Service: r.Service, store: r.store, ids: page, unsaved: sentVersions{}}
			err := p.run(ctx)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.sent, r.err, gone = r.sent+p.sent, errors.Join(r.err, err), append(gone, p.gone...)
		})
	}
	r.parts.Go(func() {
		pages.Wait()
		if err := r.forget(ctx, some, gone); err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.err = errors.Join(r.err, err)
		}
	})
}

func (r *round) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// forget takes sessions that are gone out of the index.
func (s *Service) forget(ctx context.Context, from []state.Entry[shard], gone []string) error {
	var errs []error
	for _, entry := range from {
		missing := shard{}
		for _, id := range gone {
			if at, there := entry.Value[id]; there {
				missing[id] = at
			}
		}
		if len(missing) > 0 {
			errs = append(errs, s.index.leave(ctx, entry.Key, missing))
		}
	}
	return errors.Join(errs...)
}

// A recomputation is of some sessions, whose capabilities are computed anew.
type recomputation struct {
	*Service
	store   *state.Store[entry]
	ids     []string
	unsaved sentVersions
	sent    int
	gone    []string // found missing in any try: a later one looks only at those that were lost
}

func (p *recomputation) run(ctx context.Context) error {
	left := p.ids
	return state.RetryOnConflict(ctx, func() error {
		c, seen, err := p.catalogue(ctx)
		if err != nil {
			return err
		}
		items, err := p.compute(ctx, c, left)
		if err != nil || len(items) == 0 {
			return err
		}
		results, err := p.store.SaveBulk(ctx, items)
		if err != nil {
			return err
		}
		var lost []string
		var errs []error
		for i, r := range results {
			id := items[i].Key[len(sessionKey("")):]
			if r.Err != nil {
				lost, errs = append(lost, id), append(errs, r.Err)
			} else {
				delete(p.unsaved, id)
			}
		}
		if _, now, err := p.catalogue(ctx); err != nil || now != seen {
			// What was written may be of an older catalogue than what it replaced.
			left = p.ids
			return cmp.Or(err, state.ErrConflict)
		}
		left = lost
		return errors.Join(errs...)
	})
}

// compute sends what sessions may call from now on, and returns what is to be written of it.
func (p *recomputation) compute(ctx context.Context, c catalogue, ids []string) ([]state.Item[entry], error) {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = sessionKey(id)
	}
	kept, err := p.store.GetBulk(ctx, keys)
	if err != nil {
		return nil, err
	}
	var items []state.Item[entry]
	alike, now := map[string]*audience{}, p.cfg.Now()
	for i, id := range ids {
		if !kept[i].Found {
			p.gone = append(p.gone, id)
			continue
		}
		e := &kept[i].Value
		of := e.signature()
		some, known := alike[of]
		if !known {
			some = &audience{allowance: computed(c.allows(e))}
			alike[of] = some
		}
		if e.next(now, id, some.allowance, false, p.unsaved) {
			some.sessions = append(some.sessions, events.SessionVersion{SessionID: id, Version: e.Version})
			items = append(items, state.Item[entry]{Key: keys[i], Value: *e, ETag: &kept[i].ETag, Expiry: state.Keep})
		}
	}
	p.sent += len(items)
	return items, p.tell(ctx, maps.Values(alike))
}

// An audience is sessions with the same roles and states, which may call the same.
type audience struct {
	allowance
	sessions []events.SessionVersion // that are told
}

// tell sends one event to each audience: a thousand of them would keep the broker busy for longer than all else takes.
func (p *recomputation) tell(ctx context.Context, all iter.Seq[*audience]) error {
	var publications []*bus.Publication
	var errs []error
	for some := range all {
		if len(some.sessions) == 0 {
			continue
		}
		publication, err := p.cfg.Bus.PublishAsync(ctx, events.TopicPermissionsCapabilitiesChanged, &events.CapabilitiesChangedEvent{
			Sessions: some.sessions, Capabilities: some.capabilities,
		}, bus.PublishOptions{})
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
