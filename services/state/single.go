package state

import (
	"context"
	"errors"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/problem"
	"github.com/bannou-mesh/bannou/services/state/stateapi"
)

// getState is POST /state/get.
func (s *Service) getState(ctx context.Context, r *stateapi.GetStateRequest) (*stateapi.GetStateResponse, error) {
	store, err := s.store(ctx, r.StoreName, guard.Read)
	if err != nil {
		return nil, err
	}
	if err := checkKey("key", r.Key); err != nil {
		return nil, err
	}
	if store, err = reading(store, r.Options); err != nil {
		return nil, err
	}
	entry, err := store.GetWithETag(ctx, r.Key)
	if err != nil {
		return nil, absent(err, r.Key)
	}
	metadata := stateapi.StateMetadata{CreatedAt: entry.CreatedAt.UTC(), UpdatedAt: entry.UpdatedAt.UTC(), Version: entry.Version}
	if !entry.ExpiresAt.IsZero() {
		expiresAt := entry.ExpiresAt.UTC()
		metadata.ExpiresAt = &expiresAt
	}
	return &stateapi.GetStateResponse{Value: entry.Value, Etag: entry.ETag, Metadata: metadata}, nil
}

// saveState is POST /state/save.
func (s *Service) saveState(ctx context.Context, r *stateapi.SaveStateRequest) (*stateapi.SaveStateResponse, error) {
	store, err := s.store(ctx, r.StoreName, guard.Write)
	if err != nil {
		return nil, err
	}
	if err := checkKey("key", r.Key); err != nil {
		return nil, err
	}
	if err := checkValue("value", r.Value); err != nil {
		return nil, err
	}
	in := r.Options
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
		saved, err = store.SaveWith(ctx, r.Key, r.Value, o)
	} else {
		saved, err = store.TrySaveWith(ctx, r.Key, r.Value, *in.Etag, o)
	}
	if err != nil {
		return nil, err
	}
	return &stateapi.SaveStateResponse{Success: true, Etag: saved.ETag}, nil
}

// deleteState is POST /state/delete.
func (s *Service) deleteState(ctx context.Context, r *stateapi.DeleteStateRequest) (*stateapi.DeleteStateResponse, error) {
	store, err := s.store(ctx, r.StoreName, guard.Write)
	if err != nil {
		return nil, err
	}
	if err := checkKey("key", r.Key); err != nil {
		return nil, err
	}
	member, etag := "etag", r.Etag
	if r.Options.Etag != nil {
		if etag != nil {
			return nil, problem.Invalid("options.etag", "is given beside etag: give one of them")
		}
		member, etag = "options.etag", r.Options.Etag
	}
	if etag == nil {
		deleted, err := store.Delete(ctx, r.Key)
		if err != nil {
			return nil, err
		}
		return &stateapi.DeleteStateResponse{Deleted: deleted}, nil
	}
	if *etag == "" {
		return nil, problem.Invalid(member, "is empty: nothing can be removed on condition that it is absent")
	}
	if err := store.TryDelete(ctx, r.Key, *etag); err != nil {
		return nil, absent(err, r.Key)
	}
	return &stateapi.DeleteStateResponse{Deleted: true}, nil
}

// absent is the problem of a key that is not there; other errors stay.
func absent(err error, key string) error {
	if errors.Is(err, state.ErrNotFound) {
		return problem.New(problem.NotFound, "member key: the store has no key %q; it was never saved, was removed or has expired", key).
			At("key").Because(err)
	}
	return err
}
