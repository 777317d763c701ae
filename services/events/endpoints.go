package events

import (
	"context"
	"net/http"

	"github.com/bannou-mesh/bannou/services/events/eventsapi"
	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/problem"
)

// Mount registers /events/*.
func (s *Service) Mount(mux *http.ServeMux) error {
	eventsapi.HandlerWithOptions(endpoints{s, jsonbody.Limits{MaxBytes: s.cfg.MaxBodyBytes}}, eventsapi.StdHTTPServerOptions{
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

var _ eventsapi.ServerInterface = endpoints{}

// answer reads a request of type Q, has it done within the time of one operation, and answers with what comes of it.
func answer[Q, A any](e endpoints, w http.ResponseWriter, r *http.Request, do func(ctx context.Context, request *Q) (*A, error)) {
	request, err := jsonbody.Decode[Q](e.limits, w, r)
	if err != nil {
		problem.Write(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(e.identified(r), e.cfg.Timeout)
	defer cancel()
	response, err := do(ctx, request)
	if err != nil {
		problem.Write(w, eventsProblem(err))
		return
	}
	jsonbody.Write(w, response)
}

// AppendEvents is POST /events/append.
func (e endpoints) AppendEvents(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.appendEvents)
}

// ReadEvents is POST /events/read.
func (e endpoints) ReadEvents(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.readEvents) }

// ListStreams is POST /events/streams.
func (e endpoints) ListStreams(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.listStreams)
}

// SnapshotStream is POST /events/snapshot.
func (e endpoints) SnapshotStream(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.snapshotStream)
}

// StreamAt is POST /events/at.
func (e endpoints) StreamAt(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.streamAt) }

// DiffStream is POST /events/diff.
func (e endpoints) DiffStream(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.diffStream) }

// EraseSubject is POST /events/erase.
func (e endpoints) EraseSubject(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.eraseSubject)
}

// RewrapKeys is POST /events/rewrap.
func (e endpoints) RewrapKeys(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.rewrapKeys) }

// ListParked is POST /events/parked.
func (e endpoints) ListParked(w http.ResponseWriter, r *http.Request) { answer(e, w, r, e.listParked) }

// ReleaseParked is POST /events/release.
func (e endpoints) ReleaseParked(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.releaseParked)
}
