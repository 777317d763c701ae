package state

import (
	"context"
	"net/http"

	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/problem"
	"github.com/bannou-mesh/bannou/services/state/stateapi"
)

// Mount registers /state/*.
func (s *Service) Mount(mux *http.ServeMux) error {
	stateapi.HandlerWithOptions(endpoints{s, jsonbody.Limits{MaxBytes: s.cfg.MaxBodyBytes}}, stateapi.StdHTTPServerOptions{
		BaseRouter:       mux,
		ErrorHandlerFunc: jsonbody.WriteDecodeError,
	})
	return nil
}

// endpoints are the service's operations as handlers.
type endpoints struct {
	*Service
	limits jsonbody.Limits
}

var _ stateapi.ServerInterface = endpoints{}

// answer reads a request of type Q, has it done within the time of one operation, and answers with what comes of it.
func answer[Q, A any](e endpoints, w http.ResponseWriter, r *http.Request, do func(ctx context.Context, request *Q) (*A, error)) {
	request, err := jsonbody.Decode[Q](e.limits, w, r)
	if err != nil {
		problem.Write(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), e.cfg.Timeout)
	defer cancel()
	if e.cfg.Access != nil {
		ctx = withAuthorization(ctx, r.Header)
	}
	response, err := do(ctx, request)
	if err != nil {
		problem.Write(w, stateProblem(err))
		return
	}
	jsonbody.Write(w, response)
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
