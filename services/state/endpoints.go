package state

import (
	"context"
	"net/http"

	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/state/stateapi"
)

// Mount registers /state/*.
func (s *Service) Mount(mux *http.ServeMux) error {
	stateapi.HandlerWithOptions(endpoints{s, s.operations()}, stateapi.StdHTTPServerOptions{
		BaseRouter:       mux,
		ErrorHandlerFunc: jsonbody.WriteDecodeError,
	})
	return nil
}

func (s *Service) operations() jsonbody.Operations {
	return jsonbody.Operations{Limits: jsonbody.Limits{MaxBytes: s.cfg.MaxBodyBytes}, Timeout: s.cfg.Timeout, Context: s.identified, Problem: stateProblem}
}

// endpoints are the service's operations as handlers.
type endpoints struct {
	*Service
	operations jsonbody.Operations
}

var _ stateapi.ServerInterface = endpoints{}

func answer[Q, A any](e endpoints, w http.ResponseWriter, r *http.Request, do func(ctx context.Context, request *Q) (*A, error)) {
	jsonbody.Answer(e.operations, w, r, do)
}

// GetState is POST /state/get.
func (e endpoints) GetState(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.getState) }

// SaveState is POST /state/save.
func (e endpoints) SaveState(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.saveState) }

// DeleteState is POST /state/delete.
func (e endpoints) DeleteState(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.deleteState)
}

// QueryState is POST /state/query.
func (e endpoints) QueryState(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.queryState) }

// BulkGetState is POST /state/bulk-get.
func (e endpoints) BulkGetState(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.bulkGetState)
}

// BulkSaveState is POST /state/bulk-save.
func (e endpoints) BulkSaveState(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.bulkSaveState)
}

// BulkDeleteState is POST /state/bulk-delete.
func (e endpoints) BulkDeleteState(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.bulkDeleteState)
}

// BulkExistsState is POST /state/bulk-exists.
func (e endpoints) BulkExistsState(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.bulkExistsState)
}

// TransactState is POST /state/transact.
func (e endpoints) TransactState(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.transactState)
}

// ListStores is POST /state/list-stores.
func (e endpoints) ListStores(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.listStores) }
