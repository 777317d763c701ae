package accounts

import (
	"context"
	"errors"
	"net/http"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/accounts/accountsapi"
	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/problem"
)

// Mount registers /accounts/*.
func (s *Service) Mount(mux *http.ServeMux) error {
	accountsapi.HandlerWithOptions(endpoints{s, s.operations()}, accountsapi.StdHTTPServerOptions{
		BaseRouter:       mux,
		ErrorHandlerFunc: jsonbody.WriteDecodeError,
	})
	return nil
}

func (s *Service) operations() jsonbody.Operations {
	return jsonbody.Operations{Limits: jsonbody.Limits{MaxBytes: s.cfg.MaxBodyBytes}, Timeout: s.cfg.Timeout, Problem: accountProblem}
}

// endpoints are the service's operations as handlers.
type endpoints struct {
	*Service
	operations jsonbody.Operations
}

var _ accountsapi.ServerInterface = endpoints{}

func answer[Q, A any](e endpoints, w http.ResponseWriter, r *http.Request, do func(ctx context.Context, request *Q) (*A, error)) {
	jsonbody.Answer(e.operations, w, r, do)
}

// accountProblem is an error of the log or the list as callers see it. Problems stay as they are.
func accountProblem(err error) error {
	if _, ok := errors.AsType[*problem.Problem](err); ok {
		return err
	}
	switch {
	case errors.Is(err, state.ErrConflict):
		return problem.New(problem.Conflict, "others change the account at the same time; try again").Because(err)
	case errors.Is(err, state.ErrOutcomeUnknown):
		return problem.New(problem.OutcomeUnknown, "the log did not answer in time: the change may or may not have been made; read the account").Because(err)
	case errors.Is(err, state.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Unavailable, "what keeps the accounts is away; nothing was changed").Because(err)
	default:
		return err
	}
}

// RegisterAccount is POST /accounts/register.
func (e endpoints) RegisterAccount(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.registerAccount)
}

// GetAccount is POST /accounts/get.
func (e endpoints) GetAccount(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.getAccount) }

// GetAccountByEmail is POST /accounts/by-email.
func (e endpoints) GetAccountByEmail(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.getAccountByEmail)
}

// UpdateAccount is POST /accounts/update.
func (e endpoints) UpdateAccount(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.updateAccount)
}

// ChangeAccountEmail is POST /accounts/change-email.
func (e endpoints) ChangeAccountEmail(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.changeAccountEmail)
}

// SetAccountRoles is POST /accounts/set-roles.
func (e endpoints) SetAccountRoles(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.setAccountRoles)
}

// ListAccounts is POST /accounts/list.
func (e endpoints) ListAccounts(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.listAccounts)
}

// DeleteAccount is POST /accounts/delete.
func (e endpoints) DeleteAccount(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.deleteAccount)
}

// EraseAccount is POST /accounts/erase.
func (e endpoints) EraseAccount(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.eraseAccount)
}
