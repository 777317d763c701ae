package daprstate

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Config is where the sidecar is, and where it keeps stores. Endpoint is required.
type Config struct {
	// Endpoint is the sidecar's HTTP API, such as http://127.0.0.1:3500.
	Endpoint string
	// Token is shown in the header dapr-api-token. Default: none.
	Token string
	// Place says which component keeps a store, and what its keys begin with there: two stores of one component need prefixes that keep them apart.
	// Default: the component of the store's name, with the keys as they are.
	Place func(store string) (component, prefix string)
	// Rounding lets Dapr round numbers that its HTTP API does not keep: integers beyond 2^53, and on Redis more than six digits after the point.
	// Default: a value with such a number is ErrInvalid.
	Rounding bool
	// Transport sends the requests. Default: one of the driver's own, HTTP/1.1 with kept connections.
	Transport http.RoundTripper
}

func (c Config) check() error {
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("daprstate: %w: the sidecar's endpoint must be http://host:port", state.ErrInvalid)
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("daprstate: %w: the sidecar's endpoint ends with the port", state.ErrInvalid)
	}
	return nil
}
