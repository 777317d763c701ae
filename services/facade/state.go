package facade

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// A StateStore is a store that the app may name.
type StateStore struct {
	// Factory has the store under Name.
	Factory *state.Factory
	Name    string
	// Kind is what /v1.0/metadata says of it, such as state.redis.
	Kind string
	// Prefix is put before each key where the store does not do it itself, with || between; empty: none.
	Prefix string
}

// key is the app's key as the store has it.
func (s StateStore) key(key string) (string, error) {
	switch {
	case key == "":
		return "", refuse(http.StatusBadRequest, "ERR_MALFORMED_REQUEST", `"key" is a required field`)
	case strings.Contains(key, "||"):
		return "", refuse(http.StatusBadRequest, "ERR_MALFORMED_REQUEST", "input key/keyPrefix '%s' can't contain '||'", key)
	case s.Prefix == "":
		return key, nil
	}
	return s.Prefix + "||" + key, nil
}

// original is the app's key again.
func (s StateStore) original(key string) string {
	if s.Prefix == "" {
		return key
	}
	return strings.TrimPrefix(key, s.Prefix+"||")
}

type values = state.Store[jsontext.Value]

// store finds the store that a request names.
func (s *Service) store(r *http.Request) (StateStore, *values, error) {
	name := r.PathValue("store")
	if len(s.cfg.Stores) == 0 {
		return StateStore{}, nil, refuse(http.StatusInternalServerError, "ERR_STATE_STORE_NOT_CONFIGURED", "state store %s is not configured", name)
	}
	st, known := s.cfg.Stores[name]
	if !known {
		return StateStore{}, nil, refuse(http.StatusBadRequest, "ERR_STATE_STORE_NOT_FOUND", "state store %s is not found", name)
	}
	opened, err := state.Open[jsontext.Value](r.Context(), st.Factory, st.Name)
	if err != nil {
		return st, nil, refuse(http.StatusInternalServerError, "ERR_STATE_STORE_NOT_CONFIGURED", "state store %s cannot be opened: %s", name, err)
	}
	return st, opened, nil
}

// An entry is one save or delete as it is asked for.
type entry struct {
	Key      string            `json:"key"`
	Value    jsontext.Value    `json:"value"`
	ETag     *string           `json:"etag"`
	Metadata map[string]string `json:"metadata"`
	Options  struct {
		Concurrency string `json:"concurrency"`
		Consistency string `json:"consistency"`
	} `json:"options"`
}

// item is the entry as the store takes it. Without a condition the last write wins; an ETag is the condition unless the entry says last-write,
// and first-write without one means that the key must be new.
func (e entry) item(st StateStore, request map[string]string) (state.Item[jsontext.Value], error) {
	item := state.Item[jsontext.Value]{Value: e.Value}
	var err error
	if item.Key, err = st.key(e.Key); err != nil {
		return item, err
	}
	if len(item.Value) == 0 {
		item.Value = jsontext.Value("null")
	}
	if item.ETag, err = condition(e.ETag, e.Options.Concurrency); err != nil {
		return item, err
	}
	if c := e.Options.Consistency; c != "" && c != "strong" && c != "eventual" {
		return item, malformed("unrecognized consistency type '%s'", c)
	}
	item.Expiry, err = expiry(over(request, e.Metadata)["ttlinseconds"])
	return item, err
}

func condition(etag *string, concurrency string) (*string, error) {
	given := etag != nil && *etag != ""
	switch concurrency {
	case "first-write":
		if !given {
			return new(string), nil
		}
		return etag, nil
	case "", "last-write":
		if given && concurrency == "" {
			return etag, nil
		}
		return nil, nil
	}
	return nil, malformed("unrecognized concurrency type '%s'", concurrency)
}

// expiry is that of ttlInSeconds: none keeps the store's way, a number that is not positive means never.
func expiry(seconds string) (state.Expiry, error) {
	if seconds == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(seconds, 10, 32)
	switch {
	case err != nil:
		return 0, malformed("ttlInSeconds is '%s', and has to be a number of seconds", seconds)
	case n <= 0:
		return state.Never, nil
	}
	return state.After(time.Duration(n) * time.Second), nil
}

// stateRefusal tells an app why its call of a store failed.
func stateRefusal(err error, code, what string) error {
	if no := (*refusal)(nil); err == nil || errors.As(err, &no) {
		return err
	}
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, state.ErrConflict), errors.Is(err, state.ErrNotFound):
		status = http.StatusConflict
	case errors.Is(err, state.ErrInvalid), errors.Is(err, state.ErrTooLarge):
		status = http.StatusBadRequest
	case errors.Is(err, state.ErrUnavailable):
		status = http.StatusServiceUnavailable
	}
	return refuse(status, code, "%s: %s", what, err)
}

// getState is GET /v1.0/state/{store}/{key}.
func (s *Service) getState(w http.ResponseWriter, r *http.Request) error {
	st, store, err := s.store(r)
	if err != nil {
		return err
	}
	key, err := st.key(r.PathValue("key"))
	if err != nil {
		return err
	}
	found, err := store.GetWithETag(r.Context(), key)
	if errors.Is(err, state.ErrNotFound) {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	if err != nil {
		return stateRefusal(err, "ERR_STATE_GET", "fail to get "+r.PathValue("key")+" from state store "+r.PathValue("store"))
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
	st, store, err := s.store(r)
	if err != nil {
		return err
	}
	var entries []entry
	if err := s.decode(w, r, &entries); err != nil {
		return err
	}
	request := metadata(r)
	items := make([]state.Item[jsontext.Value], len(entries))
	for i, e := range entries {
		if items[i], err = e.item(st, request); err != nil {
			return err
		}
	}
	if err := save(r.Context(), store, items); err != nil {
		return stateRefusal(err, "ERR_STATE_SAVE", "failed saving state in state store "+r.PathValue("store"))
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// save makes each save on its own, as Dapr does. The first failure is the answer, one of a condition before others.
func save(ctx context.Context, store *values, items []state.Item[jsontext.Value]) error {
	var failure error
	note := func(err error) {
		if err != nil && (failure == nil || errors.Is(err, state.ErrConflict)) {
			failure = err
		}
	}
	for _, part := range distinct(items, func(i state.Item[jsontext.Value]) string { return i.Key }) {
		results, err := store.SaveBulk(ctx, part)
		if err != nil {
			return err
		}
		for _, result := range results {
			note(result.Err)
		}
	}
	return failure
}

// distinct cuts a list, in order, into parts that a store takes at once: without a key twice, and not too long.
func distinct[E any](list []E, key func(E) string) (parts [][]E) {
	begin, seen := 0, map[string]bool{}
	for i, e := range list {
		if seen[key(e)] || i-begin == state.MaxBulkKeys {
			parts = append(parts, list[begin:i])
			begin, seen = i, map[string]bool{}
		}
		seen[key(e)] = true
	}
	if begin < len(list) {
		parts = append(parts, list[begin:])
	}
	return parts
}

// deleteState is DELETE /v1.0/state/{store}/{key}.
func (s *Service) deleteState(w http.ResponseWriter, r *http.Request) error {
	st, store, err := s.store(r)
	if err != nil {
		return err
	}
	key, err := st.key(r.PathValue("key"))
	if err != nil {
		return err
	}
	etag := r.Header.Get("If-Match")
	if etag == "" || r.URL.Query().Get("concurrency") == "last-write" {
		_, err = store.Delete(r.Context(), key)
	} else {
		err = store.TryDelete(r.Context(), key, etag)
	}
	if err != nil {
		return stateRefusal(err, "ERR_STATE_DELETE", "failed deleting state with key "+r.PathValue("key"))
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
