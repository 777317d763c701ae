package state

import (
	"context"

	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
	"github.com/bannou-mesh/bannou/services/state/stateapi"
)

// listStores is POST /state/list-stores.
func (s *Service) listStores(ctx context.Context, r *stateapi.ListStoresRequest) (*stateapi.ListStoresResponse, error) {
	if r.BackendFilter != "" && !r.BackendFilter.Valid() {
		return nil, problem.Invalid("backendFilter", "is %.64q, and has to be redis, mysql, sqlite or memory", string(r.BackendFilter))
	}
	who, err := s.lister(ctx)
	if err != nil {
		return nil, err
	}
	stores := []stateapi.StoreInfo{}
	for _, store := range s.cfg.Factory.Stores() {
		if s.internal[store.Name] || r.BackendFilter != "" && string(r.BackendFilter) != store.Backend {
			continue
		}
		if !s.cfg.Access.Allows(who, store.Name, guard.Read) && !s.cfg.Access.Allows(who, store.Name, guard.Write) {
			continue
		}
		stores = append(stores, stateapi.StoreInfo{Name: store.Name, Backend: store.Backend})
	}
	if r.IncludeStats {
		s.count(ctx, who, stores)
	}
	return &stateapi.ListStoresResponse{Stores: stores}, nil
}

// lister is who asks for the stores. One whose token is wrong is told so, and not shown less than he expects.
func (s *Service) lister(ctx context.Context) (guard.TokenHolder, error) {
	if s.cfg.Access == nil {
		return guard.TokenHolder{}, nil
	}
	who := s.caller(ctx)
	if who.Claimed && who.App == "" {
		s.refusals.add(ctx, "", guard.List, "wrong_token")
		return who, wrongToken()
	}
	return who, nil
}

// count fills in how many keys the stores have that the caller may read.
func (s *Service) count(ctx context.Context, who guard.TokenHolder, stores []stateapi.StoreInfo) {
	var names []string
	var places []int
	for i := range stores {
		if !s.cfg.Access.Allows(who, stores[i].Name, guard.Read) {
			stores[i].Code, stores[i].Detail = string(problem.Forbidden), "who may only write is not told how many keys there are"
			continue
		}
		names, places = append(names, stores[i].Name), append(places, i)
	}
	for i, c := range s.counts.of(ctx, names) {
		store := &stores[places[i]]
		if !c.at.IsZero() {
			at := c.at.UTC()
			store.KeyCount, store.CountedAt = &c.keys, &at
		}
		store.Code, store.Detail = failure(c.err)
	}
}
