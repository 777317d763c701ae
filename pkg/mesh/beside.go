package mesh

import (
	"context"
	"net/http"
	"slices"
)

// A Carrier takes calls to app-ids another way than through this mesh's registry: a sidecar of Dapr. It is safe for concurrent use.
//
// It chooses the instance and tries again as it likes: of a client's settings only the deadline counts for its calls.
type Carrier interface {
	// Carries reports whether calls of an app-id, or of a service by its name, go this way.
	Carries(target string) bool

	// Carry sends a request and returns the target's answer, whatever it is. The request has its path, its query and its headers; host and scheme
	// are the carrier's to choose. It ends with the request's context. ErrUnknownTarget and ErrNoEndpoint say what they do elsewhere, ErrUnavailable that the
	// carrier itself is away; then nothing was sent.
	Carry(appID string, req *http.Request) (*http.Response, error)
}

// carried reports whether a call goes by the carrier, and to which app-id. What this process has itself does not.
func (c *Client) carried(target, path string) (appID string, ok bool) {
	if c.carrier == nil {
		return "", false
	}
	own := target == c.appID || slices.Contains(c.localServices, target)
	if c.local != nil && own && c.hasLocally(target, path) {
		return "", false
	}
	appID, known := c.directory.current.Load().resolve(target)
	if !known || appID == c.appID && target != appID {
		appID = target // whom the registry does not know, Dapr does
	}
	return appID, c.carrier.Carries(target) || c.carrier.Carries(appID)
}

// routeBy is route, or the carrier where it is for that.
func (c *Client) routeBy(ctx context.Context, target, path string) (route, error) {
	if appID, ok := c.carried(target, path); ok {
		return route{appID: appID, carried: true}, nil
	}
	return c.route(ctx, target, path)
}
