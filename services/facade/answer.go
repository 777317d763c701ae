package facade

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
)

// A refusal is an error as Dapr answers one.
type refusal struct {
	status  int
	code    string
	message string

	illegalKey bool // which has no code of its own over HTTP
}

// Error is the message.
func (r *refusal) Error() string { return r.message }

func refuse(status int, code, format string, values ...any) *refusal {
	return &refusal{status: status, code: code, message: fmt.Sprintf(format, values...)}
}

func malformed(format string, values ...any) *refusal {
	return refuse(http.StatusBadRequest, "ERR_MALFORMED_REQUEST", "failed deserializing HTTP body: "+format, values...)
}

// handler makes an http.Handler of a function that may fail.
func (s *Service) handler(serve func(w http.ResponseWriter, r *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := serve(w, r); err != nil {
			s.answerError(w, r, err)
		}
	})
}

func (s *Service) answerError(w http.ResponseWriter, r *http.Request, err error) {
	var no *refusal
	if !errors.As(err, &no) {
		no = refuse(http.StatusInternalServerError, "ERR_INTERNAL", "%s", err)
	}
	if no.status >= http.StatusInternalServerError {
		s.cfg.Logger.WarnContext(r.Context(), "a call of the Dapr API failed", "method", r.Method, "path", r.URL.Path, "code", no.code, "error", err)
	}
	if kept, is := w.(*keptResponse); is {
		kept.failed = no // it goes on as an error, not as an answer
		return
	}
	no.answer(w)
}

func (r *refusal) answer(w http.ResponseWriter) {
	answerJSON(w, r.status, struct {
		ErrorCode string `json:"errorCode"`
		Message   string `json:"message"`
	}{r.code, r.message})
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "the answer cannot be written as JSON", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec,nolintlint // JSON, and called so; the linter sees it in some runs
}

// body reads a request's body, of at most the configured size.
func (s *Service) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	content, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.cfg.MaxBodyBytes))
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		return nil, refuse(http.StatusRequestEntityTooLarge, "ERR_BODY_TOO_LARGE", "the body has more than the %d bytes that are taken", large.Limit)
	}
	if err != nil {
		return nil, malformed("%s", err)
	}
	return content, nil
}

// decode reads a request's body as JSON.
func (s *Service) decode(w http.ResponseWriter, r *http.Request, into any) error {
	content, err := s.body(w, r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, into); err != nil {
		return malformed("%s", err)
	}
	return nil
}

// metadata are the parameters metadata.NAME of a request, names in lower case.
func metadata(r *http.Request) map[string]string {
	m := map[string]string{}
	for name, values := range r.URL.Query() {
		if name, is := cutPrefixFold(name, "metadata."); is && len(values) > 0 {
			m[strings.ToLower(name)] = values[0]
		}
	}
	return m
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// over returns the request's metadata with those of an entry, which count more.
func over(request, entry map[string]string) map[string]string {
	all := make(map[string]string, len(request)+len(entry))
	for name, value := range request {
		all[name] = value
	}
	for name, value := range entry {
		all[strings.ToLower(name)] = value
	}
	return all
}
