package events

import (
	"context"
	"net/http"

	"github.com/bannou-mesh/bannou/services/events/eventsapi"
	"github.com/bannou-mesh/bannou/services/jsonbody"
)

// Mount registers /events/*.
func (s *Service) Mount(mux *http.ServeMux) error {
	eventsapi.HandlerWithOptions(endpoints{s, s.operations()}, eventsapi.StdHTTPServerOptions{
		BaseRouter:       mux,
		ErrorHandlerFunc: jsonbody.WriteDecodeError,
	})
	return nil
}

func (s *Service) operations() jsonbody.Operations {
	return jsonbody.Operations{Limits: jsonbody.Limits{MaxBytes: s.cfg.MaxBodyBytes}, Timeout: s.cfg.Timeout, Context: s.identified, Problem: eventsProblem}
}

// endpoints are the service's operations as handlers.
type endpoints struct {
	*Service
	operations jsonbody.Operations
}

var _ eventsapi.ServerInterface = endpoints{}

func answer[Q, A any](e endpoints, w http.ResponseWriter, r *http.Request, do func(ctx context.Context, request *Q) (*A, error)) {
	jsonbody.Answer(e.operations, w, r, do)
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

// CloseStream is POST /events/close.
func (e endpoints) CloseStream(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.closeStream)
}

// ArchiveStream is POST /events/archive.
func (e endpoints) ArchiveStream(w http.ResponseWriter, r *http.Request) {
	answer(e, w, r, e.archiveStream)
}
