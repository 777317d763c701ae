package mesh

import (
	"errors"
	"fmt"
	"net/http"
)

// HeaderCalled names the app-id that the sender of a request means to reach. Every [Client] sends it.
const HeaderCalled = "Bannou-Called-App-Id"

// Addressed keeps from a node what is meant for another: a request whose header Bannou-Called-App-Id names another app-id
// is answered with 421 misdirected, and next does not see it. Every [Client] sends the header. Addresses are given anew,
// and a directory may have an instance that died for as long as its heartbeats may be late: whoever serves at its address
// by then gets its requests. The client sends what was misdirected to another instance; nobody has done anything with it.
//
// A request without the header is for whoever gets it.
func Addressed(appID string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := CheckAddressed(appID, r.Header); err != nil {
			writeProblem(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// CheckAddressed is ErrMisdirected when the header of a request names another app-id, for handlers that answer it themselves: as
// [Addressed] does, with 421.
func CheckAddressed(appID string, h http.Header) error {
	if called := h[HeaderCalled]; len(called) > 0 && called[0] != appID {
		return fmt.Errorf("%w: it is for %q, and this is an instance of %q", ErrMisdirected, clip(called[0]), appID)
	}
	return nil
}

// headerUnhandled, in an answer of 503, says that no handler saw the request: the node is starting, or has stopped.
const headerUnhandled = "Bannou-Unhandled"

// neverHandled reports whether an attempt ended before any handler saw the request: no connection could be established,
// another app-id's instance is at the address, or the node takes no requests yet.
func neverHandled(resp *http.Response, err error) bool {
	if err != nil {
		return neverConnected(err)
	}
	return resp.StatusCode == http.StatusMisdirectedRequest || notServing(resp)
}

func notServing(resp *http.Response) bool {
	return resp.StatusCode == http.StatusServiceUnavailable && len(resp.Header[headerUnhandled]) > 0
}

// unhandled is why no handler saw the request of an attempt.
func unhandled(resp *http.Response, err error) error {
	switch {
	case err != nil:
		return err
	case notServing(resp):
		return errNotServing
	default:
		return ErrMisdirected
	}
}

var errNotServing = errors.New("it takes no requests yet, or any more")
