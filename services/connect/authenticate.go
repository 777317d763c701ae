package connect

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// ErrNoSession reports an access token that holds for no session.
var ErrNoSession = errors.New("the access token is of no session")

// A Login is whose an access token is.
type Login struct {
	AccountID string   `json:"accountId"`
	SessionID string   `json:"sessionId"`
	Roles     []string `json:"roles"`
	// SessionExpiresAt is when the session ends, unless it is refreshed before; zero: nobody knows.
	SessionExpiresAt time.Time `json:"sessionExpiresAt"`
}

// An Authenticator says whose an access token is. It is safe for concurrent use.
type Authenticator interface {
	// Validate returns the login of a token, or ErrNoSession.
	Validate(ctx context.Context, accessToken string) (Login, error)
}

// MeshAuth asks the auth service, wherever in the mesh it runs.
type MeshAuth struct{ client *mesh.Client }

// NewMeshAuth calls the auth service with a client.
func NewMeshAuth(client *mesh.Client) *MeshAuth { return &MeshAuth{client: client} }

// Validate is POST /auth/validate.
func (m *MeshAuth) Validate(ctx context.Context, accessToken string) (Login, error) {
	type request struct {
		AccessToken string `json:"accessToken"`
	}
	login, err := mesh.Invoke[request, Login](ctx, m.client, "auth", "auth/validate", request{accessToken})
	if refusal, is := errors.AsType[*mesh.ResponseError](err); is && refusal.StatusCode == http.StatusUnauthorized {
		return Login{}, ErrNoSession
	}
	if err != nil {
		return Login{}, err
	}
	// Both become parts of topics and of keys: what is no id names nothing.
	for _, id := range []string{login.SessionID, login.AccountID} {
		if parsed, err := uuid.Parse(id); err != nil || parsed.String() != id {
			return Login{}, errors.New("the auth service names a session or an account that has no id as a UUID is written")
		}
	}
	return login, nil
}
