package facade

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
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
	// AnyBytes says that values need not be JSON, as in a store that Dapr keeps its rows in. Elsewhere such a value is kept as bytesMember says.
	AnyBytes bool
}

// key is the app's key as the store has it.
func (s StateStore) key(key string) (string, error) {
	switch {
	case key == "":
		return "", refuse(http.StatusBadRequest, "ERR_MALFORMED_REQUEST", `"key" is a required field`)
	case strings.Contains(key, "||"):
		no := refuse(http.StatusBadRequest, "ERR_MALFORMED_REQUEST", "input key/keyPrefix '%s' can't contain '||'", key)
		no.illegalKey = true
		return "", no
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

// bytesMember is the only member of the object that stands for a value which is not JSON, in base64, in a store that keeps JSON alone.
const bytesMember = "$bytes"

// stored is a value as the store keeps it.
func (s StateStore) stored(value []byte) state.Opaque {
	if s.AnyBytes || jsontext.Value(value).IsValid() && bytes.Equal(s.loaded(value), value) {
		return value
	}
	return state.Opaque(`{"` + bytesMember + `":"` + base64.StdEncoding.EncodeToString(value) + `"}`)
}

// loaded is the value that was given to stored, which keeps one that looks like such an object in another.
func (s StateStore) loaded(value state.Opaque) []byte {
	if s.AnyBytes || !bytes.Contains(value, []byte(bytesMember)) { // where it stands depends on the engine, which may have put spaces in
		return value
	}
	var kept map[string]string
	if json.Unmarshal(value, &kept) != nil || len(kept) != 1 {
		return value
	}
	content, err := base64.StdEncoding.DecodeString(kept[bytesMember])
	if err != nil {
		return value
	}
	return content
}

type values = state.Store[state.Opaque]

// store finds the store of that name.
func (s *Service) store(ctx context.Context, name string) (StateStore, *values, error) {
	if len(s.cfg.Stores) == 0 {
		return StateStore{}, nil, refuse(http.StatusInternalServerError, "ERR_STATE_STORE_NOT_CONFIGURED", "state store %s is not configured", name)
	}
	st, known := s.cfg.Stores[name]
	if !known {
		return StateStore{}, nil, refuse(http.StatusBadRequest, "ERR_STATE_STORE_NOT_FOUND", "state store %s is not found", name)
	}
	opened, err := state.Open[state.Opaque](ctx, st.Factory, st.Name)
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
func (e entry) item(st StateStore, request map[string]string) (state.Item[state.Opaque], error) {
	item := state.Item[state.Opaque]{Value: st.stored(e.Value)}
	var err error
	if item.Key, err = st.key(e.Key); err != nil {
		return item, err
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

// readState is the value of a key. One that is absent is state.ErrNotFound.
func (s *Service) readState(ctx context.Context, name, key string) (state.Entry[state.Opaque], error) {
	st, store, err := s.store(ctx, name)
	if err != nil {
		return state.Entry[state.Opaque]{}, err
	}
	full, err := st.key(key)
	if err != nil {
		return state.Entry[state.Opaque]{}, err
	}
	found, err := store.GetWithETag(ctx, full)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return found, stateRefusal(err, "ERR_STATE_GET", "fail to get "+key+" from state store "+name)
	}
	found.Value = st.loaded(found.Value)
	return found, err
}

// writeState saves entries.
func (s *Service) writeState(ctx context.Context, name string, entries []entry, request map[string]string) error {
	st, store, err := s.store(ctx, name)
	if err != nil {
		return err
	}
	items := make([]state.Item[state.Opaque], len(entries))
	for i, e := range entries {
		if items[i], err = e.item(st, request); err != nil {
			return err
		}
	}
	return stateRefusal(save(ctx, store, items), "ERR_STATE_SAVE", "failed saving state in state store "+name)
}

// save makes each save on its own, as Dapr does. The first failure is the answer, one of a condition before others.
func save(ctx context.Context, store *values, items []state.Item[state.Opaque]) error {
	var failure error
	note := func(err error) {
		if err != nil && (failure == nil || errors.Is(err, state.ErrConflict)) {
			failure = err
		}
	}
	for _, part := range distinct(items, func(i state.Item[state.Opaque]) string { return i.Key }) {
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

// removeState deletes a key, if it has the ETag that is asked for.
func (s *Service) removeState(ctx context.Context, name, key string, etag *string, concurrency string) error {
	st, store, err := s.store(ctx, name)
	if err != nil {
		return err
	}
	full, err := st.key(key)
	if err != nil {
		return err
	}
	if etag == nil || *etag == "" || concurrency == "last-write" {
		_, err = store.Delete(ctx, full)
	} else {
		err = store.TryDelete(ctx, full, *etag)
	}
	return stateRefusal(err, "ERR_STATE_DELETE", "failed deleting state with key "+key)
}
