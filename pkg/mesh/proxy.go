package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// ProxyPattern is where NewProxy's handler belongs on an http.ServeMux. A mux redirects paths with empty or dot
// segments; the handler itself takes them as they are, whatever it is mounted on.
const ProxyPattern = "/v1.0/invoke/"

// headerHops counts the proxies that a request went through.
const headerHops = "Bannou-Hops"

// ProxyConfig configures NewProxy. The zero value is ready to use.
type ProxyConfig struct {
	// ErrorHandler answers a request that could not be passed on. ErrorStatus says what an error means. Default: a
	// problem document (RFC 9457) with status, title, detail and code. It is not called for a caller that is gone: there the
	// proxy panics with http.ErrAbortHandler, for the server to break the connection.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)
	// MaxHops is how many proxies a request may go through before it is taken to go in a circle. Default 4.
	MaxHops int
}

type proxy struct {
	client   *Client
	fail     func(w http.ResponseWriter, r *http.Request, err error)
	maxHops  int
	upgrades *httputil.ReverseProxy // for requests that take the connection over
	buffers  sync.Pool              // of *[]byte: what bodies are copied through
}

// NewProxy returns the handler for ANY /v1.0/invoke/{appId}/method/{method...}: the request goes to the app-id, or to a
// service by that name, with {method...} as its path. Method, query, headers, body and trailers go through unchanged in
// both directions, as they come: nothing is buffered, server-sent events arrive at once, WebSocket upgrades pass.
// Hop-by-hop headers are removed; X-Forwarded-For, -Host and -Proto, traceparent and X-Request-Id are set.
//
// The client's Timeout bounds the wait for the response's head while the request's body does not move either; bodies
// may take as long as both sides like.
//
// What cannot be passed on is answered with 404 unknown_target for a name that nobody knows, 503 no_endpoint when none
// of its instances takes requests, 503 circuit_open or overloaded when a policy says so, 504 timeout, 502 bad_gateway when the connection failed, and 508 loop_detected. A
// request for this node itself is given to the local handler.
func NewProxy(c *Client, cfg ProxyConfig) http.Handler {
	p := &proxy{client: c, fail: cfg.ErrorHandler, maxHops: cfg.MaxHops}
	if p.fail == nil {
		p.fail = writeProblem
	}
	if p.maxHops <= 0 {
		p.maxHops = 4
	}
	p.upgrades = &httputil.ReverseProxy{
		Rewrite:   rewrite,
		Transport: upgradeTransport{c},

		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(c.log.Handler(), slog.LevelDebug), // broken pipes of callers that went away
		ErrorHandler:  p.answerError,
	}
	return p
}

// ServeHTTP implements http.Handler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	target, path, err := parseInvocation(r.URL)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	hops, err := parseHops(r.Header[headerHops])
	if err == nil && hops >= p.maxHops {
		err = fmt.Errorf("%w: the request went through %d proxies, %d are allowed", ErrTooManyHops, hops, p.maxHops)
	}
	if err != nil {
		p.fail(w, r, err)
		return
	}
	ctx, end := receive(r.Context(), r.Header)
	defer end()
	if !trace.SpanContextFromContext(ctx).IsValid() {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	call := &invocation{target: target, path: path, hops: hops + 1}
	if !takesOver(r.Header) {
		p.forward(ctx, w, r, call)
		return
	}
	p.upgrades.ServeHTTP(w, r.WithContext(context.WithValue(ctx, invocationKey{}, call)))
}

// parseHops reads the header; none is 0. What is no number is refused: taken for 0, it would let a request go in a circle.
func parseHops(values []string) (int, error) {
	if len(values) == 0 {
		return 0, nil
	}
	value := strings.Join(values, ", ")
	hops, err := strconv.ParseUint(value, 10, 31)
	if err != nil && !errors.Is(err, strconv.ErrRange) { // too many to count are still a number
		return 0, invalid(headerHops, "must be one number, 0 or more, got %q", clip(value))
	}
	return int(hops), nil
}

// An invocation is what the path of a proxied request says.
type invocation struct {
	target string
	path   *url.URL // Path and RawPath
	hops   int
	headBy time.Time // when the response's head must be there, if the request's body does not move
}

type invocationKey struct{}

func parseInvocation(u *url.URL) (target string, path *url.URL, err error) {
	rest, ok := strings.CutPrefix(u.EscapedPath(), ProxyPattern)
	target, rest, found := strings.Cut(rest, "/")
	rest, method := strings.CutPrefix(rest, "method/")
	if !ok || !found || !method {
		return "", nil, invalid("path", "must be /v1.0/invoke/{appId}/method/{method}, got %q", clip(u.Path))
	}
	if err := validName("appId", target); err != nil {
		return "", nil, err
	}
	unescaped, err := url.PathUnescape(rest)
	if err != nil {
		return "", nil, invalid("method", "is not a path: %v", err)
	}
	return target, &url.URL{Path: "/" + unescaped, RawPath: "/" + rest}, nil
}

func rewrite(pr *httputil.ProxyRequest) {
	call := pr.In.Context().Value(invocationKey{}).(*invocation)
	pr.Out.URL.Path, pr.Out.URL.RawPath = call.path.Path, call.path.RawPath
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery // also what ReverseProxy would not parse
	pr.Out.URL.Host = call.target
	pr.Out.Header["X-Forwarded-For"] = pr.In.Header["X-Forwarded-For"] // the caller's address is added to the chain
	pr.SetXForwarded()
	pr.Out.Header.Set(headerHops, strconv.Itoa(call.hops))
}

// answerError is called by ReverseProxy when no response came.
func (p *proxy) answerError(w http.ResponseWriter, r *http.Request, err error) {
	p.answerUnless(callerGone(r.Context()), w, r, err)
}

// answerUnless tells the caller why there is no response. One that is gone gets its connection broken: what is left
// unanswered, net/http's server answers with 200 and nothing, and it may be that somebody reads it.
func (p *proxy) answerUnless(gone bool, w http.ResponseWriter, r *http.Request, err error) {
	if gone {
		panic(http.ErrAbortHandler)
	}
	p.fail(w, r, err)
}

// callerGone reports whether a call ended because nobody waits for its answer. Where the time was up that the hop or the
// caller gave it, somebody does.
func callerGone(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return cause != nil && !errors.Is(cause, errHeadTimeout) && !errors.Is(cause, errSenderTimeout)
}

// An upgradeTransport sends what ReverseProxy hands over. It bounds the time until the head comes.
type upgradeTransport struct{ client *Client }

// RoundTrip implements http.RoundTripper.
func (t upgradeTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	call := req.Context().Value(invocationKey{}).(*invocation)
	ctx, cancel := context.WithCancelCause(req.Context())
	timeout, _ := t.client.timeoutOf(call.target)
	call.headBy = time.Now().Add(timeout)
	timer := startHeadTimer(timeout, func() { cancel(errHeadTimeout) })
	resp, err := t.client.send(ctx, call.target, req, ownHeader(req))
	if inTime := timer.stop(); !inTime && err == nil {
		_ = resp.Body.Close()
		err = errHeadTimeout
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols { // that body is a connection, which ReverseProxy closes
		resp.Body = &boundBody{ReadCloser: resp.Body, cancel: func() { cancel(nil) }}
	}
	return resp, nil
}

// ErrorStatus returns the status and the code that tell a caller over HTTP what an error of this package means.
func ErrorStatus(err error) (status int, code string) {
	switch {
	case errors.Is(err, ErrInvalid):
		return http.StatusBadRequest, "invalid"
	case errors.Is(err, ErrMisdirected):
		return http.StatusMisdirectedRequest, "misdirected"
	case errors.Is(err, ErrUnknownTarget):
		return http.StatusNotFound, "unknown_target"
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound, "not_found"
	case errors.Is(err, ErrConflict):
		return http.StatusConflict, "conflict"
	case errors.Is(err, ErrTooManyHops):
		return http.StatusLoopDetected, "loop_detected"
	case errors.Is(err, ErrNoEndpoint):
		return http.StatusServiceUnavailable, "no_endpoint"
	case errors.Is(err, ErrUnavailable):
		return http.StatusServiceUnavailable, "unavailable"
	case errors.Is(err, ErrCircuitOpen):
		return http.StatusServiceUnavailable, "circuit_open"
	case errors.Is(err, ErrOverloaded):
		return http.StatusServiceUnavailable, "overloaded"
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout, "timeout"
	default:
		return http.StatusBadGateway, "bad_gateway"
	}
}

func writeProblem(w http.ResponseWriter, _ *http.Request, err error) {
	status, code := ErrorStatus(err)
	detail := err.Error()
	if status == http.StatusBadGateway {
		detail = "the instance could not be reached, or broke off" // addresses are for the log
	}
	body, err := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Code   string `json:"code"`
	}{"about:blank", http.StatusText(status), status, detail, code})
	if err != nil {
		status, body = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
