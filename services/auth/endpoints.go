package auth

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/auth/authapi"
	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/problem"
)

// Mount registers /auth/*.
func (s *Service) Mount(mux *http.ServeMux) error {
	authapi.HandlerWithOptions(endpoints{s, s.operations()}, authapi.StdHTTPServerOptions{
		BaseRouter:       mux,
		ErrorHandlerFunc: jsonbody.WriteDecodeError,
	})
	return nil
}

func (s *Service) operations() jsonbody.Operations {
	return jsonbody.Operations{Limits: jsonbody.Limits{MaxBytes: s.cfg.MaxBodyBytes}, Timeout: s.cfg.Timeout, Problem: authProblem}
}

// endpoints are the service's operations as handlers.
type endpoints struct {
	*Service
	operations jsonbody.Operations
}

var _ authapi.ServerInterface = endpoints{}

// A caller is who sent a request, as far as the request tells.
type caller struct {
	address string // where from
	token   string // Authorization's, empty without

	sessionID, accountID string // whose the gateway says that the call is; empty where nobody says it who is believed
}

// answer has a request done. Answers have tokens in them, which no cache is to keep.
func answer[Q, A any](e endpoints, w http.ResponseWriter, r *http.Request, do func(ctx context.Context, c caller, request *Q) (*A, error)) {
	w.Header().Set("Cache-Control", "no-store")
	jsonbody.Answer(e.operations, w, r, func(ctx context.Context, request *Q) (*A, error) {
		c := caller{address: address(r, e.cfg.Proxies), token: bearer(r.Header)}
		if e.cfg.NodesTell {
			c.sessionID, c.accountID = r.Header.Get("Bannou-Session-Id"), r.Header.Get("Bannou-Account-Id")
		}
		return do(ctx, c, request)
	})
}

// bearer is the token in Authorization. Where there is none, or several, it is empty, which no token is.
func bearer(h http.Header) string {
	values := h.Values("Authorization")
	if len(values) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return token
}

// authProblem is an error of what auth depends on as callers see it. Problems stay as they are.
func authProblem(err error) error {
	if _, ok := errors.AsType[*problem.Problem](err); ok {
		return err
	}
	switch {
	case errors.Is(err, errBusy):
		return problem.New(problem.Overloaded, "too many log in at the same time; try again").Because(err)
	case errors.Is(err, state.ErrConflict):
		return problem.New(problem.Conflict, "others change the same at the same time; try again").Because(err)
	case errors.Is(err, state.ErrOutcomeUnknown):
		return problem.New(problem.OutcomeUnknown, "a store did not answer in time: it may or may not have been done").Because(err)
	case errors.Is(err, state.ErrUnavailable), errors.Is(err, errNoKeys), errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Unavailable, "a store, the bus or the accounts service is away; nothing was done").Because(err)
	case notSent(err):
		return problem.New(problem.Unavailable, "no node with the accounts service takes requests now; nothing was done").Because(err)
	}
	if failed, is := errors.AsType[*mesh.ResponseError](err); is && failed.StatusCode >= http.StatusInternalServerError {
		return problem.New(problem.Unavailable, "the accounts service failed; try again").Because(err)
	}
	return err
}

// notSent reports that the accounts service was asked for nothing.
func notSent(err error) bool {
	return errors.Is(err, mesh.ErrNoEndpoint) || errors.Is(err, mesh.ErrUnknownTarget) || errors.Is(err, mesh.ErrCircuitOpen) || errors.Is(err, mesh.ErrOverloaded)
}

// GetKeys is GET /auth/jwks.
func (e endpoints) GetKeys(w http.ResponseWriter, r *http.Request) {
	set, err := e.getKeys(r.Context())
	if err != nil {
		problem.Write(w, authProblem(err))
		return
	}
	w.Header().Set("Cache-Control", "public, max-age=60")
	jsonbody.Write(w, set)
}

// Register is POST /auth/register.
func (e endpoints) Register(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.register) }

// Login is POST /auth/login.
func (e endpoints) Login(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.login) }

// Validate is POST /auth/validate.
func (e endpoints) Validate(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.validate) }

// Refresh is POST /auth/refresh.
func (e endpoints) Refresh(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.refresh) }

// Logout is POST /auth/logout.
func (e endpoints) Logout(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.logout) }

// ListSessions is POST /auth/sessions/list.
func (e endpoints) ListSessions(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.listSessions)
}

// TerminateSession is POST /auth/sessions/terminate.
func (e endpoints) TerminateSession(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.terminateSession)
}

// ChangePassword is POST /auth/password/change.
func (e endpoints) ChangePassword(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.changePassword)
}

// RequestPasswordReset is POST /auth/password/request-reset.
func (e endpoints) RequestPasswordReset(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.requestPasswordReset)
}

// ConfirmPasswordReset is POST /auth/password/confirm-reset.
func (e endpoints) ConfirmPasswordReset(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.confirmPasswordReset)
}

// ConfirmAccount is POST /auth/accounts/confirm.
func (e endpoints) ConfirmAccount(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.confirmAccount)
}

// EndAccount is POST /auth/accounts/end.
func (e endpoints) EndAccount(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.endAccount) }
