package host

import (
	"net/http"
	"strings"

	"github.com/bannou-mesh/bannou/services/problem"
)

// A Failure is a request that the node itself failed at: its handler panicked, or returned an error that is none of those
// that callers are told of. An answer of 500 that a handler passes on from elsewhere is none.
type Failure struct {
	Operation string       // the method and path that the handler was mounted with, such as "POST /state/save"
	RequestID string       // under which the log says what was wrong
	Code      problem.Code // as in the answer
	Detail    string       // as in the answer
}

// tell calls OnFailure when a request has failed.
func (h *Host) tell(r *http.Request, answer *recorder) {
	p := answer.problem
	if h.cfg.OnFailure == nil || p == nil || p.Status != http.StatusInternalServerError {
		return
	}
	operation := answer.route
	if !strings.Contains(operation, " ") {
		operation = known(r.Method) + " " + operation
	}
	h.cfg.OnFailure(r.Context(), Failure{Operation: operation, RequestID: RequestID(r.Context()), Code: p.Code, Detail: p.Detail})
}
