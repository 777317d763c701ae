package auth

import (
	"context"
	"errors"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// CredentialStore has one value for each account with a password. It lasts.
const CredentialStore = "auth-credentials"

// pendingFor is how long a password waits for its account to be made.
const pendingFor = time.Hour

// A credential is the password of an account. Each new one has the next generation, so that what was begun with an old one is told.
type credential struct {
	Hash       string    `json:"hash"`
	Generation int64     `json:"generation"`
	ChangedAt  time.Time `json:"changedAt"`
	Pending    bool      `json:"pending,omitempty"` // the account was not there when it was saved: it goes by itself
}

// credentials keep them.
type credentials struct{ factory *state.Factory }

func (c credentials) open(ctx context.Context) (*state.Store[credential], error) {
	return state.Open[credential](ctx, c.factory, CredentialStore)
}

// get returns the credential of an account, and its ETag. One that is not there is the zero value with an empty ETag.
func (c credentials) get(ctx context.Context, accountID string) (credential, string, error) {
	store, err := c.open(ctx)
	if err != nil {
		return credential{}, "", err
	}
	entry, err := store.GetWithETag(ctx, accountID)
	if errors.Is(err, state.ErrNotFound) {
		return credential{}, "", nil
	}
	return entry.Value, entry.ETag, err
}

// save replaces the credential that has the ETag, and otherwise is state.ErrConflict.
func (c credentials) save(ctx context.Context, accountID string, v credential, etag string) (string, error) {
	store, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	expiry := state.Never
	if v.Pending {
		expiry = state.After(pendingFor)
	}
	saved, err := store.TrySaveWith(ctx, accountID, v, etag, state.SaveOptions{Expiry: expiry})
	return saved.ETag, err
}

func (c credentials) remove(ctx context.Context, accountID string) error {
	store, err := c.open(ctx)
	if err != nil {
		return err
	}
	_, err = store.Delete(ctx, accountID)
	return err
}
