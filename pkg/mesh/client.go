package mesh

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// ClientConfig configures a Client. Directory is required.
type ClientConfig struct {
	// Directory tells where services are. The caller runs it.
	Directory *Directory
	// AppID and InstanceID are this node's own. Empty for a program that only calls.
	AppID, InstanceID string
	// Local handles requests to services of this process, without a socket. It is the node's whole handler, middleware
	// included. Nil: every call goes over HTTP.
	Local http.Handler
	// LocalServices are the services that Local has, as they begin a path: "messaging" for /messaging/publish. Requests
	// for this node's app-id and another service go to the app-id's other instances. None: Local has every service of
	// this node's app-id.
	LocalServices []string
	// LocalMaxInFlight is how many requests at once Local handles for this client while other instances are there: those
	// over it go to them. Default 1000; negative: any number.
	LocalMaxInFlight int
	// Balancer chooses among usable instances. Default PeakEWMA().
	Balancer Balancer
	// Zone is where this client runs. Instances of the same zone are preferred while five of seven of them take requests;
	// with fewer, a part in proportion goes to other zones. Default: zones do not matter.
	Zone string
	// Ejection says when an instance that fails is left out for a while. The zero value is its defaults.
	Ejection Ejection
	// SlowStart is how long an instance that is new, usable again or no longer ejected takes to get its whole share of
	// requests, from a tenth on. Default 10 s; negative: none.
	SlowStart time.Duration
	// Transport sends requests to other nodes. Default: HTTP/1.1 with kept connections, see NewTransport.
	Transport http.RoundTripper
	// Control is asked before the default transport connects, with the address that a host resolved to, as
	// net.Dialer.ControlContext; its error refuses the connection. Endpoints come from whoever writes to the registry or
	// the bus: a node that answers strangers should not connect wherever they say. Default: every address is allowed.
	Control func(ctx context.Context, network, address string, c syscall.RawConn) error
	// Authorize adds to the headers of a call to another instance what shows who calls. Default: nothing.
	Authorize func(http.Header)
	// TLS makes the default transport's connections to instances of an app-id; its ServerName is what their certificates have to
	// be for. Connections are kept apart by app-id. Default: HTTP without TLS.
	TLS func(appID string) *tls.Config
	// Carrier takes the calls of some targets another way, such as through a sidecar of Dapr. Default: none.
	Carrier Carrier
	// Timeout bounds a call whose context has no deadline, or one that a request brought (see [Inbound]); its response's
	// body included. Default 30 s.
	Timeout time.Duration
	// Policy says of every target what is sent again and when to give up; Policies of some, by app-id, instead of it.
	Policy   Policy
	Policies map[string]Policy
	// MaxResponseBytes is the longest body that Invoke reads. Default 16 MiB.
	MaxResponseBytes int64
	// Circuits is told when this client ejects an instance (open), tries it again (halfOpen) and calls it as before (closed). It may not
	// block. Default: nobody is.
	Circuits func(CircuitChange)
	// Logger hears of panics of Local and of instances that could not be reached. Default: nobody.
	Logger *slog.Logger
	// MeterProvider gets, by target (app-id): the counter bannou.mesh.requests and the histogram bannou.mesh.duration
	// (seconds until the response's head), both by outcome too; bannou.mesh.picks, a counter of requests to instances, and
	// bannou.mesh.ejections, by reason (consecutive, share, again); the gauges bannou.mesh.instances, by state (available, warming,
	// ejected), bannou.mesh.in_flight and bannou.mesh.panic (0 or 1); of the policies, bannou.mesh.retries, by result (made,
	// overBudget), bannou.mesh.hedges, by result (won, lost), bannou.mesh.breaker, by state (closed, open, halfOpen; 1 or 0), and
	// bannou.mesh.breaker.opened, bannou.mesh.bulkhead.calls, .waiting and .refused. Default: none.
	MeterProvider metric.MeterProvider
	// TracerProvider gets one client span a call, with an event for each further attempt. Default: none; the caller's trace context is passed on anyway.
	TracerProvider trace.TracerProvider
}

// A Client calls services by name. A target is the name of a service or an app-id, see [Directory.Resolve]; a request for
// this node itself is handled by its own handler, without a socket. It is safe for concurrent use.
//
// What it learns of an instance by calling it is its own: see [Instance]. A request is sent again, if possible to another
// instance, when that can do no harm: see [Retry].
type Client struct {
	directory     *Directory
	appID         string
	instanceID    string
	local         *localTransport // nil: none
	localServices []string
	balancing     balancing
	pools         pools
	transport     http.RoundTripper
	ownTransport  idleCloser // to close; nil when the caller gave one
	carrier       Carrier    // nil: none
	scheme        string
	authorize     func(http.Header)
	timeout       time.Duration
	maxResponse   int64
	log           *slog.Logger
	telemetry     *telemetry
}

// NewClient returns a client. Close it when it is no longer needed.
func NewClient(cfg ClientConfig) (*Client, error) {
	if cfg.Directory == nil {
		return nil, errors.New("a mesh client needs a directory")
	}
	if cfg.Local != nil && cfg.AppID == "" {
		return nil, errors.New("a mesh client with a local handler needs its node's app-id")
	}
	c := &Client{directory: cfg.Directory, appID: cfg.AppID, instanceID: cfg.InstanceID,
		localServices: slices.Clone(cfg.LocalServices), transport: cfg.Transport,
		carrier: cfg.Carrier, scheme: "http", authorize: cfg.Authorize, timeout: cfg.Timeout, maxResponse: cfg.MaxResponseBytes, log: cfg.Logger}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.transport == nil {
		plain := newTransport(cfg.Control)
		c.transport, c.ownTransport = plain, plain
	}
	if cfg.TLS != nil {
		if cfg.Transport != nil {
			return nil, errors.New("a mesh client makes TLS connections with its own transport: leave out one of the two")
		}
		secured := &tlsTransport{plain: c.ownTransport.(*http.Transport), config: cfg.TLS}
		c.transport, c.ownTransport, c.scheme = secured, secured, "https"
	}
	if c.timeout <= 0 {
		c.timeout = 30 * time.Second
	}
	if c.maxResponse <= 0 {
		c.maxResponse = 16 << 20
	}
	if cfg.Local != nil {
		c.local = &localTransport{handler: cfg.Local, log: c.log, most: cmp.Or(cfg.LocalMaxInFlight, 1000)}
	}
	var err error
	if c.balancing, err = newBalancing(cfg); err != nil {
		return nil, err
	}
	if c.telemetry, err = newTelemetry(cfg.MeterProvider, cfg.TracerProvider); err != nil {
		return nil, err
	}
	c.balancing.log, c.balancing.ejections, c.balancing.circuits = c.log, c.telemetry.ejected, cfg.Circuits
	if c.balancing.policies, err = newPolicies(cfg.Policy, cfg.Policies); err != nil {
		return nil, err
	}
	return c, c.telemetry.observe(c.Targets)
}

func newBalancing(cfg ClientConfig) (balancing, error) {
	ejection, err := cfg.Ejection.withDefaults()
	if err != nil {
		return balancing{}, err
	}
	b := balancing{balancer: cfg.Balancer, zone: cfg.Zone, slowStart: cmp.Or(cfg.SlowStart, 10*time.Second), ejection: ejection,
		rand: rand.Uint64}
	if b.balancer == nil {
		b.balancer = PeakEWMA()
	}
	if cfg.Local != nil {
		b.self = cfg.InstanceID
	}
	start := time.Now()
	b.clock = func() time.Duration { return time.Since(start) + time.Hour } // far from 0, which means never
	return b, nil
}

// NewTransport returns what a Client uses by default: HTTP/1.1 with many kept connections to each node, no proxy, bodies
// as they are, and 3 seconds to connect (with a client's TLS, its handshake included), because another instance may be waiting.
func NewTransport() *http.Transport { return newTransport(nil) }

func newTransport(control func(context.Context, string, string, syscall.RawConn) error) *http.Transport {
	dialer := &net.Dialer{Timeout: connectTime, KeepAlive: 30 * time.Second, ControlContext: control}
	return &http.Transport{
		DialContext:           dialer.DialContext,
		MaxIdleConns:          1024,
		MaxIdleConnsPerHost:   256,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		DisableCompression:    true,
	}
}

// Close closes idle connections of the client's own transport, and ends its gauges. Calls under way go on.
func (c *Client) Close() {
	c.telemetry.close()
	if c.ownTransport != nil {
		c.ownTransport.CloseIdleConnections()
	}
}

// Directory is the one that the client was made with.
func (c *Client) Directory() *Directory { return c.directory }

// Do sends a request to a target. Of req.URL, path and query count; req itself is not changed, its body is read and
// closed. Trace context and request id of ctx are added to its headers; every header already there stays, save
// traceparent when ctx has a trace. Whatever the target answers is a response, not an error; its body must be closed.
//
// Errors: ErrUnknownTarget, ErrNoEndpoint, ErrCircuitOpen, ErrOverloaded, the context's, or what the transport said.
func (c *Client) Do(ctx context.Context, target string, req *http.Request) (*http.Response, error) {
	return c.call(ctx, target, req, ownHeader(req))
}

// ownHeader is a copy of a request's headers that may be changed.
func ownHeader(req *http.Request) http.Header {
	if req.Header == nil {
		return http.Header{}
	}
	return req.Header.Clone()
}

// call is Do with headers that are the call's to change.
func (c *Client) call(ctx context.Context, target string, req *http.Request, header http.Header) (*http.Response, error) {
	ctx, cancel := c.bound(ctx, target)
	resp, err := c.send(ctx, target, req, header)
	if err != nil {
		cancel()
		return nil, err
	}
	switch body := resp.Body.(type) {
	case *callBody:
		body.cancel = cancel
	case *callConn:
		body.cancel = cancel
	default:
		endWithBody(resp, cancel)
	}
	return resp, nil
}

// bound gives a call its deadline.
func (c *Client) bound(ctx context.Context, target string) (context.Context, context.CancelFunc) {
	_, bounded := ctx.Deadline()
	timeout, always := c.timeoutOf(target)
	if bounded && !always {
		if _, brought := ctx.Value(inboundKey{}).(inbound); !brought {
			return ctx, func() {}
		}
	}
	return context.WithTimeout(ctx, timeout)
}

// timeoutOf is how long a call may take; always says that this holds whatever the caller's deadline is.
func (c *Client) timeoutOf(target string) (timeout time.Duration, always bool) {
	if c.balancing.policies.timeouts {
		appID, _ := c.directory.current.Load().resolve(target)
		if p := c.balancing.policies.of(appID); p.Timeout > 0 {
			return p.Timeout, true
		}
	}
	return c.timeout, false
}

// Route returns the instance that the balancer picks now for an app-id or a service, as a call from elsewhere would:
// ErrUnknownTarget or ErrNoEndpoint if there is none. It does not count as a call.
func (c *Client) Route(target string) (*Endpoint, error) {
	s := c.directory.current.Load()
	appID, known := s.resolve(target)
	if !known {
		return nil, unknownTarget(target)
	}
	g := s.apps[appID]
	p := c.pool(appID, g)
	if p == nil {
		return nil, noEndpoint(appID)
	}
	now := c.balancing.clock()
	in := p.pick(p.viewOf(g, now).everyone.of(target), now)
	if in == nil {
		return nil, noEndpoint(appID)
	}
	return in.Endpoint(), nil
}

func unknownTarget(target string) error {
	return fmt.Errorf("%w %q: no service is mapped, no instance registered under this name", ErrUnknownTarget, clip(target))
}

func noEndpoint(appID string) error {
	return fmt.Errorf("%w: no instance of %q takes requests now", ErrNoEndpoint, appID)
}

// A route is where one request goes: the local handler, or one of some instances.
type route struct {
	appID   string
	local   bool
	carried bool // by the carrier
	alone   bool // local because no other instance is known, not because the service runs here
	service string
	own     bool // this node's app-id: it is not called over HTTP itself
	pool    *pool
	choice  *choice // as it was when the route was found
}

// route finds where a request goes. What the directory does not know, it looks up once in the registry: it may have
// begun to follow it a moment ago.
func (c *Client) route(ctx context.Context, target, path string) (route, error) {
	r, err := c.lookUp(target, path)
	if (err != nil || r.alone) && c.directory.refreshOnMiss(ctx) {
		r, err = c.lookUp(target, path)
	}
	return r, err
}

func (c *Client) lookUp(target, path string) (route, error) {
	s := c.directory.current.Load()
	appID, known := s.resolve(target)
	if target == c.appID || !known && slices.Contains(c.localServices, target) && appID == c.appID {
		appID, known = c.appID, true // the directory need not know this node
	}
	own := c.local != nil && appID == c.appID
	here := known && own && c.hasLocally(target, path)
	if here && !c.local.busy() {
		return route{appID: appID, local: true}, nil
	}
	if !known {
		return route{appID: appID}, unknownTarget(target)
	}
	service := target
	if target == appID {
		service = firstSegment(path)
	}
	r := route{appID: appID, service: service, own: own}
	g := s.apps[appID]
	if r.pool = c.pool(appID, g); r.pool != nil {
		r.choose(g, c.balancing.clock())
	}
	switch {
	case r.choice != nil && len(r.choice.instances) > 0:
		return r, nil
	case own:
		return route{appID: appID, local: true, alone: !here}, nil // our own handler says what is not there
	default:
		return route{appID: appID}, noEndpoint(appID)
	}
}

// choose takes the choice that there is now.
func (r *route) choose(g *group, now time.Duration) {
	view := r.pool.viewOf(g, now)
	if r.choice = view.everyone.of(r.service); r.own {
		r.choice = view.others.of(r.service)
	}
}

// hasLocally reports whether a request for this node's app-id is for a service that runs here.
func (c *Client) hasLocally(target, path string) bool {
	return len(c.localServices) == 0 || slices.Contains(c.localServices, target) ||
		slices.Contains(c.localServices, firstSegment(path))
}

func firstSegment(path string) string {
	path = strings.TrimPrefix(path, "/")
	segment, _, _ := strings.Cut(path, "/")
	return segment
}

// send routes a request and sends it with these headers, which are its to change, with telemetry around it. The context's end ends
// the response's body too.
func (c *Client) send(ctx context.Context, target string, req *http.Request, header http.Header) (*http.Response, error) {
	begin := time.Now()
	r, err := c.routeBy(ctx, target, req.URL.Path)
	if err != nil {
		closeBody(req)
		c.telemetry.record(ctx, r.appID, outcomeOf(nil, err), begin)
		return nil, err
	}
	ctx, span := c.telemetry.start(ctx, r.appID, req)
	defer span.End()
	out := outgoing(ctx, req, header)
	out.Header[HeaderCalled] = []string{r.appID}
	out.URL.Scheme = c.scheme
	var resp *http.Response
	var retries int
	switch {
	case r.local:
		out.URL.Host = r.appID
		resp, err = c.local.RoundTrip(out)
	case r.carried:
		resp, err = c.carrier.Carry(r.appID, out)
	default:
		if c.authorize != nil {
			c.authorize(out.Header)
		}
		resp, retries, err = c.sendInTurn(calling(out, c.scheme, r.appID), r)
	}
	if err != nil {
		// A call that ends with its context may do so at any step; the caller is told the reason, whichever it was.
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		err = fmt.Errorf("call %s %s at %s: %w", out.Method, out.URL.Path, target, err)
	}
	c.telemetry.end(span, resp, retries, err)
	c.telemetry.record(ctx, r.appID, outcomeOf(resp, err), begin)
	return resp, err
}

// outgoing makes a copy of the request that may be changed, with these headers and what the context adds to them.
func outgoing(ctx context.Context, req *http.Request, header http.Header) *http.Request {
	out := req.WithContext(ctx)
	u := url.URL{Scheme: "http", Path: req.URL.Path, RawPath: req.URL.RawPath, RawQuery: req.URL.RawQuery, ForceQuery: req.URL.ForceQuery}
	if !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
		if u.RawPath != "" {
			u.RawPath = "/" + u.RawPath
		}
	}
	out.URL, out.Host, out.RequestURI = &u, "", ""
	out.Header = header
	setTimeout(ctx, out.Header)
	if key, ok := ctx.Value(idempotencyKey{}).(string); ok && key != "" && out.Header.Get(headerIdempotencyKey) == "" {
		out.Header.Set(headerIdempotencyKey, key)
	}
	if in, ok := ctx.Value(inboundKey{}).(inbound); ok && in.spent {
		out.Header.Set(headerRetries, retriesSpent)
	}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(out.Header))
	if id := RequestID(ctx); id != "" && out.Header.Get(headerRequestID) == "" {
		out.Header.Set(headerRequestID, id)
	}
	return out
}
