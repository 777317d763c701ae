package state

import (
	"context"
	"errors"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/problem"
	"github.com/bannou-mesh/bannou/services/state/stateapi"
)

// GetState is POST /state/get.
func (s *Service) GetState(ctx context.Context, r stateapi.GetStateRequestObject) (stateapi.GetStateResponseObject, error) {
	store, err := s.store(ctx, r.Body.StoreName, read)
	if err != nil {
		return nil, err
	}
	if err := checkKey("key", r.Body.Key); err != nil {
		return nil, err
	}
	if store, err = reading(store, r.Body.Options); err != nil {
		return nil, err
	}
	entry, err := store.GetWithETag(ctx, r.Body.Key)
	if err != nil {
		return nil, absent(err, r.Body.Key)
	}
	metadata := stateapi.StateMetadata{CreatedAt: entry.CreatedAt.UTC(), UpdatedAt: entry.UpdatedAt.UTC(), Version: entry.Version}
	if !entry.ExpiresAt.IsZero() {
		expiresAt := entry.ExpiresAt.UTC()
		metadata.ExpiresAt = &expiresAt
	}
	return stateapi.GetState200JSONResponse{Value: entry.Value, Etag: entry.ETag, Metadata: metadata}, nil
}

// SaveState is POST /state/save.
func (s *Service) SaveState(ctx context.Context, r stateapi.SaveStateRequestObject) (stateapi.SaveStateResponseObject, error) {
	store, err := s.store(ctx, r.Body.StoreName, write)
	if err != nil {
		return nil, err
	}
	if err := checkKey("key", r.Body.Key); err != nil {
		return nil, err
	}
	if err := checkValue("value", r.Body.Value); err != nil {
		return nil, err
	}
	in := r.Body.Options
	if err := checkConsistency(in.Consistency); err != nil {
		return nil, err
	}
	lives, err := expiry("options.ttl", in.TTL)
	if err != nil {
		return nil, err
	}
	o := state.SaveOptions{Expiry: lives}
	var saved state.Saved
	if in.Etag == nil {
		saved, err = store.SaveWith(ctx, r.Body.Key, r.Body.Value, o)
	} else {
		saved, err = store.TrySaveWith(ctx, r.Body.Key, r.Body.Value, *in.Etag, o)
	}
	if err != nil {
		return nil, err
	}
	return stateapi.SaveState200JSONResponse{Success: true, Etag: saved.ETag}, nil
}

// DeleteState is POST /state/delete.
func (s *Service) DeleteState(ctx context.Context, r stateapi.DeleteStateRequestObject) (stateapi.DeleteStateResponseObject, error) {
	store, err := s.store(ctx, r.Body.StoreName, write)
	if err != nil {
		return nil, err
	}
	if err := checkKey("key", r.Body.Key); err != nil {
		return nil, err
	}
	if r.Body.Etag == nil {
		deleted, err := store.Delete(ctx, r.Body.Key)
		if err != nil {
			return nil, err
		}
		return stateapi.DeleteState200JSONResponse{Deleted: deleted}, nil
	}
	if *r.Body.Etag == "" {
		return nil, problem.Invalid("etag", "is empty: nothing can be removed on condition that it is absent")
	}
	if err := store.TryDelete(ctx, r.Body.Key, *r.Body.Etag); err != nil {
		return nil, absent(err, r.Body.Key)
	}
	return stateapi.DeleteState200JSONResponse{Deleted: true}, nil
}

// absent is the problem of a key that is not there; other errors stay.
func absent(err error, key string) error {
	if errors.Is(err, state.ErrNotFound) {
		return problem.New(problem.NotFound, "member key: the store has no key %q; it was never saved, was removed or has expired", key).
			At("key").Because(err)
	}
	return err
}
