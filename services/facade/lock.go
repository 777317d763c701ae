package facade

import (
	"errors"
	"net/http"
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
func (s *Service) lockStore(r *http.Request) (*state.Store[lockValue], error) {
	name := r.PathValue("store")
	st, known := s.cfg.Stores[name]
	if !known {
		return nil, refuse(http.StatusBadRequest, "ERR_LOCK_STORE_NOT_FOUND", "lock store %s not found", name)
	}
	opened, err := state.Open[lockValue](r.Context(), st.Factory, st.Name)
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

func (s *Service) lockRequest(w http.ResponseWriter, r *http.Request) (lockRequest, error) {
	var asked lockRequest
	if err := s.decode(w, r, &asked); err != nil {
		return asked, err
	}
	if asked.ResourceID == "" || asked.Owner == "" {
		return asked, malformed("resourceId and lockOwner are needed")
	}
	return asked, nil
}

// lock is POST /v1.0-alpha1/lock/{store}.
func (s *Service) lock(w http.ResponseWriter, r *http.Request) error {
	store, err := s.lockStore(r)
	if err != nil {
		return err
	}
	asked, err := s.lockRequest(w, r)
	if err != nil {
		return err
	}
	var seconds int32
	if err := json.Unmarshal(asked.Expiry, &seconds, json.StringifyNumbers(asked.Expiry.Kind() == '"')); err != nil || seconds <= 0 {
		return malformed("expiryInSeconds is to be a number of seconds, over 0")
	}
	_, err = store.TrySaveWith(r.Context(), lockPrefix+asked.ResourceID, lockValue{asked.Owner}, "",
		state.SaveOptions{Expiry: state.After(time.Duration(seconds) * time.Second)})
	if err != nil && !errors.Is(err, state.ErrConflict) {
		return stateRefusal(err, "ERR_TRY_LOCK", "failed to try acquiring lock")
	}
	answerJSON(w, http.StatusOK, map[string]bool{"success": err == nil})
	return nil
}

// unlock is POST /v1.0-alpha1/unlock/{store}.
func (s *Service) unlock(w http.ResponseWriter, r *http.Request) error {
	store, err := s.lockStore(r)
	if err != nil {
		return err
	}
	asked, err := s.lockRequest(w, r)
	if err != nil {
		return err
	}
	status := unlocked
	held, err := store.GetWithETag(r.Context(), lockPrefix+asked.ResourceID)
	switch {
	case errors.Is(err, state.ErrNotFound):
		status, err = lockMissing, nil
	case err == nil && held.Value.Owner != asked.Owner:
		status = lockOfOthers
	case err == nil:
		err = store.TryDelete(r.Context(), lockPrefix+asked.ResourceID, held.ETag)
		if errors.Is(err, state.ErrNotFound) {
			status, err = lockMissing, nil
		} else if errors.Is(err, state.ErrConflict) { // it expired and was taken meanwhile
			status, err = lockOfOthers, nil
		}
	}
	if err != nil {
		return stateRefusal(err, "ERR_UNLOCK", "failed to release lock")
	}
	answerJSON(w, http.StatusOK, map[string]int{"status": status})
	return nil
}
