package state

import (
	"context"

	"github.com/bannou-mesh/bannou/services/problem"
	"github.com/bannou-mesh/bannou/services/state/stateapi"
)

// ListStores is POST /state/list-stores.
func (s *Service) ListStores(ctx context.Context, r stateapi.ListStoresRequestObject) (stateapi.ListStoresResponseObject, error) {
	var filter stateapi.ListStoresRequest
	if r.Body != nil {
		filter = *r.Body
	}
	if filter.BackendFilter != "" && !filter.BackendFilter.Valid() {
		return nil, problem.Invalid("backendFilter", "is %.64q, and has to be redis, mysql, sqlite or memory", string(filter.BackendFilter))
	}
	stores := []stateapi.StoreInfo{}
	for _, store := range s.cfg.Factory.Stores() {
		if s.internal[store.Name] || filter.BackendFilter != "" && string(filter.BackendFilter) != store.Backend {
			continue
		}
		stores = append(stores, stateapi.StoreInfo{Name: store.Name, Backend: store.Backend})
	}
	if filter.IncludeStats {
		s.count(ctx, stores)
	}
	return stateapi.ListStores200JSONResponse{Stores: stores}, nil
}

// count fills in how many keys the stores have.
func (s *Service) count(ctx context.Context, stores []stateapi.StoreInfo) {
	names := make([]string, len(stores))
	for i, store := range stores {
		names[i] = store.Name
	}
	for i, c := range s.counts.of(ctx, names) {
		if !c.at.IsZero() {
			at := c.at.UTC()
			stores[i].KeyCount, stores[i].CountedAt = &c.keys, &at
		}
		stores[i].Code, stores[i].Detail = failure(c.err)
	}
}
