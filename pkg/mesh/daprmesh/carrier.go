package daprmesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// Config is where the sidecar is, and for whom. Endpoint is required.
type Config struct {
	// Endpoint is the sidecar's HTTP API, such as http://127.0.0.1:3500.
	Endpoint string
	// Token is shown in the header dapr-api-token. Default: none.
	Token string
	// Targets reports whether an app-id, or a service by its name, is called this way. Default: all are.
	Targets func(target string) bool
	// Transport sends the requests. Default: one of the carrier's own, HTTP/1.1 with kept connections.
	Transport http.RoundTripper
}

// A Carrier calls apps through a sidecar. It is safe for concurrent use.
type Carrier struct {
	base      *url.URL
	token     string
	targets   func(string) bool
	transport http.RoundTripper
	idle      func() // nil: the transport is the caller's
}

var _ mesh.Carrier = (*Carrier)(nil)

// headerToken shows the sidecar that the caller is its app.
const headerToken = "Dapr-Api-Token" //nolint:gosec // a header's name

// New returns a carrier. It does not connect.
func New(cfg Config) (*Carrier, error) {
	base, err := url.Parse(strings.TrimSuffix(cfg.Endpoint, "/"))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" || base.Path != "" || base.User != nil {
		return nil, &mesh.InvalidError{Member: "endpoint", Reason: "must be the sidecar's, http://host:port"}
	}
	c := &Carrier{base: base, token: cfg.Token, targets: cfg.Targets, transport: cfg.Transport}
	if c.transport == nil {
		own := mesh.NewTransport()
		c.transport, c.idle = own, own.CloseIdleConnections
	}
	return c, nil
}

// Carries implements mesh.Carrier.
func (c *Carrier) Carries(target string) bool { return c.targets == nil || c.targets(target) }

// Carry implements mesh.Carrier. A sidecar that has only just started may take a name for known whose address it does not have: the call, of which
// nothing was sent, is made again until it does, six times at most, within some three seconds.
func (c *Carrier) Carry(appID string, req *http.Request) (*http.Response, error) {
	if req.Header.Get("Upgrade") != "" {
		closeBody(req)
		return nil, &mesh.InvalidError{Member: "Upgrade", Reason: "is nothing that Dapr passes on: call " + appID + " natively"}
	}
	for pause := 50 * time.Millisecond; ; pause *= 2 {
		resp, err := c.once(appID, req)
		if !errors.Is(err, errUnresolved) || pause > maxPause {
			return resp, err
		}
		whole := req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
		if !whole || !slept(req.Context(), pause) {
			return resp, err
		}
		again, failed := repeated(req)
		if failed != nil {
			return resp, err
		}
		req = again
	}
}

// repeated is the request with its body from the beginning.
func repeated(req *http.Request) (*http.Request, error) {
	if req.GetBody == nil {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	again := req.WithContext(req.Context())
	again.Body = body
	return again, nil
}

func slept(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Carrier) once(appID string, req *http.Request) (*http.Response, error) {
	out := req.WithContext(req.Context())
	u := *c.base
	prefix := "/v1.0/invoke/" + appID + "/method"
	u.Path, u.RawQuery, u.ForceQuery = prefix+req.URL.Path, req.URL.RawQuery, req.URL.ForceQuery
	if req.URL.RawPath != "" {
		u.RawPath = prefix + req.URL.RawPath
	}
	out.URL, out.Host = &u, ""
	if out.Header == nil {
		out.Header = http.Header{}
	}
	if c.token != "" {
		out.Header[headerToken] = []string{c.token}
	}
	resp, err := c.transport.RoundTrip(out)
	if err != nil {
		return nil, away(req.Context(), err)
	}
	return refused(appID, resp)
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// away says what it means that the sidecar did not answer.
func away(ctx context.Context, err error) error {
	var network *net.OpError
	if ctx.Err() == nil && errors.As(err, &network) && network.Op == "dial" {
		return fmt.Errorf("%w: the sidecar does not listen: %w", mesh.ErrUnavailable, err)
	}
	return err
}

// maxRefusal is how much of an answer is looked at to tell whether it is the sidecar's own.
const maxRefusal = 64 << 10

// refused turns an answer of the sidecar itself into an error, and passes those of the app on as they are.
func refused(appID string, resp *http.Response) (*http.Response, error) {
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode < http.StatusBadRequest || media != "application/json" || resp.ContentLength > maxRefusal {
		return resp, nil
	}
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil {
		_ = resp.Body.Close()
		return nil, err
	}
	var said struct {
		ErrorCode string `json:"errorCode"`
		Message   string `json:"message"`
	}
	_ = json.Unmarshal(head, &said) // what is none of the sidecar's is the app's
	if said.ErrorCode != "ERR_DIRECT_INVOKE" {
		resp.Body = restored{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body}
		return resp, nil
	}
	_ = resp.Body.Close()
	return nil, fmt.Errorf("%w: the sidecar says of %q: %s", meaning(appID, said.Message), appID, said.Message)
}

// restored is a body of which the beginning was read.
type restored struct {
	io.Reader
	io.Closer
}

// errUnresolved is that the sidecar has a name's entry without its address (seen of daprd 1.14 at its first call after a start).
var errUnresolved = fmt.Errorf("%w: the sidecar does not know its address yet", mesh.ErrNoEndpoint)

// maxPause bounds the pauses before a call of an unresolved name is made again: there are six of them, 3.15 s in all.
const maxPause = 2 * time.Second

// errNoAnswer is that the sidecar has no answer of the target. It has asked it up to four times by then: an instance that was killed over a call
// has had it, and its text tells that as it tells of one that was never reached.
var errNoAnswer = errors.New("the sidecar has no answer of the target, which may or may not have had the call")

// meaning is the mesh's word for a refusal. What says that nothing was sent is believed of this call alone: an app may pass on what its own sidecar
// told it of another, and then it has had the call.
func meaning(appID, message string) error {
	if !strings.Contains(message, "id: "+appID+",") {
		return errNoAnswer
	}
	for _, unknown := range []string{"couldn't find service", "no such host", "failed to resolve address"} {
		if strings.Contains(message, unknown) {
			return mesh.ErrUnknownTarget
		}
	}
	if strings.Contains(message, "received empty target") {
		return errUnresolved
	}
	if strings.Contains(message, "no healthy services found") { // Consul's word, before anything is sent
		return mesh.ErrNoEndpoint
	}
	return errNoAnswer
}

// Close closes idle connections of the carrier's own transport.
func (c *Carrier) Close() {
	if c.idle != nil {
		c.idle()
	}
}
