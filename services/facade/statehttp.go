package facade

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// getState is GET /v1.0/state/{store}/{key}.
func (s *Service) getState(w http.ResponseWriter, r *http.Request) error {
	found, err := s.readState(r.Context(), r.PathValue("store"), r.PathValue("key"))
	if errors.Is(err, state.ErrNotFound) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h["Etag"] = []string{found.ETag}
	if !found.ExpiresAt.IsZero() {
		h.Set("metadata.ttlExpireTime", found.ExpiresAt.UTC().Format(time.RFC3339))
	}
	_, err = w.Write(found.Value)
	_ = err // the app is gone
	return nil
}

// saveState is POST /v1.0/state/{store}.
func (s *Service) saveState(w http.ResponseWriter, r *http.Request) error {
	if _, _, err := s.store(r.Context(), r.PathValue("store")); err != nil {
		return err // before the body is read
	}
	var entries []entry
	if err := s.decode(w, r, &entries); err != nil {
		return err
	}
	for i := range entries {
		entries[i].orNull()
	}
	if err := s.writeState(r.Context(), r.PathValue("store"), entries, metadata(r)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// orNull is the value of an entry that says none.
func (e *entry) orNull() {
	if len(e.Value) == 0 {
		e.Value = []byte("null")
	}
}

// deleteState is DELETE /v1.0/state/{store}/{key}.
func (s *Service) deleteState(w http.ResponseWriter, r *http.Request) error {
	etag := r.Header.Get("If-Match")
	if err := s.removeState(r.Context(), r.PathValue("store"), r.PathValue("key"), &etag, r.URL.Query().Get("concurrency")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// bulkGetState is POST /v1.0/state/{store}/bulk. A key that is absent is there without data.
func (s *Service) bulkGetState(w http.ResponseWriter, r *http.Request) error {
	if _, _, err := s.store(r.Context(), r.PathValue("store")); err != nil {
		return err
	}
	var asked struct {
		Keys []string `json:"keys"`
	}
	if err := s.decode(w, r, &asked); err != nil {
		return err
	}
	answer, err := s.readStates(r.Context(), r.PathValue("store"), asked.Keys)
	if err != nil {
		return err
	}
	answerJSON(w, http.StatusOK, asJSON(answer))
	return nil
}

// asJSON writes values that are not JSON as strings.
func asJSON(list []bulkItem) []bulkItem {
	for i, item := range list {
		if len(item.Data) > 0 && !item.Data.IsValid() {
			list[i].Data, _ = jsontext.AppendQuote(nil, strings.ToValidUTF8(string(item.Data), "\uFFFD")) // valid UTF-8 can be quoted
		}
	}
	return list
}

// transactState is POST and PUT /v1.0/state/{store}/transaction: all or nothing.
func (s *Service) transactState(w http.ResponseWriter, r *http.Request) error {
	if _, _, err := s.store(r.Context(), r.PathValue("store")); err != nil {
		return err
	}
	var asked struct {
		Operations []operation       `json:"operations"`
		Metadata   map[string]string `json:"metadata"`
	}
	if err := s.decode(w, r, &asked); err != nil {
		return err
	}
	for i := range asked.Operations {
		asked.Operations[i].Request.orNull()
	}
	if err := s.changeStates(r.Context(), r.PathValue("store"), asked.Operations, over(metadata(r), asked.Metadata)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// queryState is POST and PUT /v1.0-alpha1/state/{store}/query.
func (s *Service) queryState(w http.ResponseWriter, r *http.Request) error {
	content, err := s.body(w, r)
	if err != nil {
		return err
	}
	found, token, err := s.findStates(r.Context(), r.PathValue("store"), content)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	answerJSON(w, http.StatusOK, struct {
		Results []bulkItem `json:"results"`
		Token   string     `json:"token,omitzero"`
	}{asJSON(found), token})
	return nil
}
