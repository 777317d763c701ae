package permissions

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

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
	err = s.index.shards(ctx, func(some []state.Entry[shard]) error {
		var ids []string
		for _, entry := range some {
			for id := range entry.Value {
				ids = append(ids, id)
			}
		}
		changed, gone, err := s.recomputePages(ctx, store, ids)
		sent += changed
		return errors.Join(err, s.forget(ctx, some, gone))
	})
	return sent, err
}

// recomputePages does it for some sessions, and says which of them are gone.
func (s *Service) recomputePages(ctx context.Context, store *state.Store[entry], ids []string) (sent int, gone []string, err error) {
	var mu sync.Mutex
	var pages sync.WaitGroup
	room := make(chan struct{}, pagesAtOnce)
	for page := range slices.Chunk(ids, pageSize) {
		room <- struct{}{}
		pages.Go(func() {
			defer func() { <-room }()
			p := recomputation{Service: s, store: store, ids: page, unsaved: sentVersions{}}
			failed := p.run(ctx)
			mu.Lock()
			defer mu.Unlock()
			sent, gone, err = sent+p.sent, append(gone, p.gone...), errors.Join(err, failed)
		})
	}
	pages.Wait()
	return sent, gone, err
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
	gone    []string
}

func (p *recomputation) run(ctx context.Context) error {
	left := p.ids
	return retrying(ctx, func() error {
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
	var publications []*bus.Publication
	p.gone = p.gone[:0]
	alike, now := map[string]allowance{}, p.cfg.Now() // sessions with the same roles and states may call the same
	for i, id := range ids {
		if !kept[i].Found {
			p.gone = append(p.gone, id)
			continue
		}
		e := &kept[i].Value
		of := e.signature()
		allowed, known := alike[of]
		if !known {
			allowed = computed(c.allows(e))
			alike[of] = allowed
		}
		sent, err := p.begin(ctx, now, id, e, allowed, false, p.unsaved)
		if err != nil {
			return nil, errors.Join(err, waitAll(publications))
		}
		if sent != nil {
			publications = append(publications, sent)
			items = append(items, state.Item[entry]{Key: keys[i], Value: *e, ETag: &kept[i].ETag, Expiry: state.Keep})
		}
	}
	p.sent += len(publications)
	return items, waitAll(publications)
}
