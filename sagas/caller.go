package sagas

import (
	"context"
	"errors"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// A Caller makes calls. It is safe for concurrent use.
type Caller interface {
	// Call posts JSON to a method of a target. key is the same for each attempt at one call, and the target does once what comes twice with a key.
	// An answer of 4xx that the target itself gives, and will give next time, is a *Refusal; any other error is worth another attempt.
	Call(ctx context.Context, target, method, key string, body jsontext.Value) (answer jsontext.Value, err error)
}

// Error tells of the refusal.
func (r *Refusal) Error() string { return "refused: " + r.Detail }

// OverMesh makes calls by a client of the mesh.
func OverMesh(client *mesh.Client) Caller { return overMesh{client} }

type overMesh struct{ client *mesh.Client }

func (c overMesh) Call(ctx context.Context, target, method, key string, body jsontext.Value) (jsontext.Value, error) {
	answer, err := mesh.Invoke[jsontext.Value, jsontext.Value](mesh.WithIdempotencyKey(ctx, key), c.client, target, method, body)
	var refused *mesh.ResponseError
	if errors.As(err, &refused) && final(refused.StatusCode) {
		r := &Refusal{Status: refused.StatusCode, Code: refused.Code, Detail: refused.Detail}
		if r.Detail == "" {
			r.Detail = refused.Error()
		}
		if jsontext.Value(refused.Body).IsValid() {
			r.Body = refused.Body
		}
		return nil, r
	}
	return answer, err
}

// final reports a status by which a service refuses, and that another attempt would get too. 401, 403 and 405 are said on the way to it, where a token
// was changed, a rule is missing, or the program is older than the caller; and 421 by another app's instance, at an address that was given anew.
func final(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusRequestTimeout, http.StatusMisdirectedRequest, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	default:
		return status >= 400 && status < 500
	}
}
