package host

import (
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/bannou-mesh/bannou/services/problem"
)

// route hands a request to the service that has its path, once services take requests.
func (h *Host) route(w http.ResponseWriter, r *http.Request) {
	handler, pattern, verbatim := h.match(r)
	if answer, ok := w.(*recorder); ok {
		answer.route = pattern
	}
	if h.cfg.Admit != nil && !isProbe(pattern) {
		admitted, err := h.cfg.Admit(r, pattern)
		if err != nil {
			problem.Write(w, err)
			return
		}
		r = admitted
	}
	switch {
	case pattern == "":
		unmatched(w, r, handler)
	case own(pattern):
		h.mux.ServeHTTP(w, r)
	case h.phase.Load() < phaseServing:
		unhandled(w, "the node is starting; /readyz tells when it is ready")
	case h.phase.Load() == phaseStopped:
		unhandled(w, "the node has stopped")
	case strings.Contains(pattern, "{") && !verbatim:
		h.mux.ServeHTTP(w, r) // which fills in what the path holds
	default:
		r.Pattern = pattern
		handler.ServeHTTP(w, r)
	}
}

// headerUnhandled says that no handler saw the request. A client of the mesh then asks another instance, whatever the method is.
const headerUnhandled = "Bannou-Unhandled"

// unhandled answers while services take no requests.
func unhandled(w http.ResponseWriter, why string) {
	w.Header().Set(headerUnhandled, "true")
	problem.Write(w, problem.New(problem.Unavailable, "%s", why))
}

// match finds the handler of a request. A mux redirects paths with empty segments and dots; where a pattern takes the rest of a
// path, whatever it is, that rest is passed on verbatim.
func (h *Host) match(r *http.Request) (handler http.Handler, pattern string, verbatim bool) {
	handler, pattern = h.mux.Handler(r)
	if !strings.HasSuffix(pattern, "...}") {
		return handler, pattern, false
	}
	escaped := r.URL.EscapedPath()
	if !strings.Contains(escaped, "//") && !strings.Contains(escaped, "/.") {
		return handler, pattern, false
	}
	short := path.Clean(escaped)
	if strings.HasSuffix(escaped, "/") {
		short += "/"
	}
	unescaped, err := url.PathUnescape(short)
	if err != nil {
		return handler, pattern, false
	}
	clean := *r
	clean.URL = &url.URL{Path: unescaped, RawPath: short}
	there, found := h.mux.Handler(&clean)
	if found != pattern { // what is left is another path
		return handler, pattern, false
	}
	return there, pattern, true
}

// unmatched answers, as a problem, what the mux would answer as text: no such path, or not with this method.
func unmatched(w http.ResponseWriter, r *http.Request, handler http.Handler) {
	probe := &headOnly{header: http.Header{}}
	handler.ServeHTTP(probe, r)
	if allow := probe.header.Get("Allow"); probe.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allow)
		problem.Write(w, problem.New(problem.MethodNotAllowed, "%s does not take %s; use %s", r.URL.Path, r.Method, allow))
		return
	}
	problem.Write(w, problem.New(problem.NotFound, "there is nothing at %s; /openapi.yaml lists what there is", r.URL.Path))
}

// headOnly keeps the status and header of an answer, and forgets its body.
type headOnly struct {
	header http.Header
	status int
}

func (h *headOnly) Header() http.Header         { return h.header }
func (h *headOnly) WriteHeader(status int)      { h.status = status }
func (h *headOnly) Write(b []byte) (int, error) { return len(b), nil }

// recorder remembers of an answer what the log and the metrics tell.
type recorder struct {
	http.ResponseWriter
	route   string // the pattern that matched
	status  int    // 0 before the header is written
	bytes   int64
	problem *problem.Problem
}

// WriteHeader notes the status. Informational ones are passed on and forgotten.
func (a *recorder) WriteHeader(status int) {
	if a.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *recorder) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	n, err := a.ResponseWriter.Write(b)
	a.bytes += int64(n)
	return n, err
}

// ObserveProblem makes it a problem.Observer.
func (a *recorder) ObserveProblem(p *problem.Problem) { a.problem = p }

// Unwrap lets http.ResponseController reach what is underneath.
func (a *recorder) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Flush is for code that does not use http.ResponseController.
func (a *recorder) Flush() { _ = http.NewResponseController(a.ResponseWriter).Flush() }
