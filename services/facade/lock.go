package facade

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// lockPrefix sets the keys of locks apart in a store.
const lockPrefix = "lock:"

// What unlocking is answered with.
const (
	unlocked     = 0
	lockMissing  = 1
	lockOfOthers = 2
)

type lockValue struct {
	Owner string `json:"owner"`
}

// lockStore finds the store that keeps locks of that name: a lock component, or any other store of the app.
func (s *Service) lockStore(ctx context.Context, name string) (*state.Store[lockValue], error) {
	st, known := s.cfg.Stores[name]
	if !known {
		return nil, refuse(http.StatusBadRequest, "ERR_LOCK_STORE_NOT_FOUND", "lock store %s not found", name)
	}
	opened, err := state.Open[lockValue](ctx, st.Factory, st.Name)
	if err != nil {
		return nil, refuse(http.StatusInternalServerError, "ERR_LOCK_STORE_NOT_CONFIGURED", "lock store %s cannot be opened: %s", name, err)
	}
	return opened, nil
}

// lockRequest is what locking and unlocking are asked with. The JavaScript SDK writes the time as a string.
type lockRequest struct {
	ResourceID string         `json:"resourceId,case:ignore"`
	Owner      string         `json:"lockOwner,case:ignore"`
	Expiry     jsontext.Value `json:"expiryInSeconds,case:ignore"`
}

// tryLock takes a lock, unless somebody holds it.
func (s *Service) tryLock(ctx context.Context, name, resource, owner string, expiry time.Duration) (bool, error) {
	store, err := s.lockStore(ctx, name)
	switch {
	case err != nil:
		return false, err
	case resource == "" || owner == "":
		return false, malformed("resourceId and lockOwner are needed")
	case strings.Contains(resource, "||"): // which is how rows of actors are told, see StateStore.key
		return false, malformed("resourceId '%s' can't contain '||'", resource)
	case expiry <= 0:
		return false, malformed("expiryInSeconds is to be a number of seconds, over 0")
	}
	_, err = store.TrySaveWith(ctx, lockPrefix+resource, lockValue{owner}, "", state.SaveOptions{Expiry: state.After(expiry)})
	if err != nil && !errors.Is(err, state.ErrConflict) {
		return false, stateRefusal(err, "ERR_TRY_LOCK", "failed to try acquiring lock")
	}
	return err == nil, nil
}

// release gives a lock back, if it is the owner's, and says what became of it.
func (s *Service) release(ctx context.Context, name, resource, owner string) (int, error) {
	store, err := s.lockStore(ctx, name)
	if err != nil {
		return 0, err
	}
	if resource == "" || owner == "" {
		return 0, malformed("resourceId and lockOwner are needed")
	}
	held, err := store.GetWithETag(ctx, lockPrefix+resource)
	if err == nil && held.Value.Owner != owner {
		return lockOfOthers, nil
	}
	if err == nil {
		err = store.TryDelete(ctx, lockPrefix+resource, held.ETag)
	}
	switch {
	case errors.Is(err, state.ErrNotFound):
		return lockMissing, nil
	case errors.Is(err, state.ErrConflict): // it expired and was taken meanwhile
		return lockOfOthers, nil
	}
	return unlocked, stateRefusal(err, "ERR_UNLOCK", "failed to release lock")
}

// lock is POST /v1.0-alpha1/lock/{store}.
func (s *Service) lock(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.lockStore(r.Context(), r.PathValue("store")); err != nil {
		return err
	}
	var asked lockRequest
	if err := s.decode(w, r, &asked); err != nil {
		return err
	}
	var seconds int32
	if err := json.Unmarshal(asked.Expiry, &seconds, json.StringifyNumbers(asked.Expiry.Kind() == '"')); err != nil {
		seconds = 0
	}
	taken, err := s.tryLock(r.Context(), r.PathValue("store"), asked.ResourceID, asked.Owner, time.Duration(seconds)*time.Second)
	if err != nil {
		return err
	}
	answerJSON(w, http.StatusOK, map[string]bool{"success": taken})
	return nil
}

// unlock is POST /v1.0-alpha1/unlock/{store}.
func (s *Service) unlock(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.lockStore(r.Context(), r.PathValue("store")); err != nil {
		return err
	}
	var asked lockRequest
	if err := s.decode(w, r, &asked); err != nil {
		return err
	}
	status, err := s.release(r.Context(), r.PathValue("store"), asked.ResourceID, asked.Owner)
	if err != nil {
		return err
	}
	answerJSON(w, http.StatusOK, map[string]int{"status": status})
	return nil
}
