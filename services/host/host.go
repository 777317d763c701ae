package host

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// Config describes a Host. Every zero value has the default beside it.
type Config struct {
	// Listen is the address to listen on, host:port; port 0 takes a free one. Default: "127.0.0.1:3500".
	Listen string
	// Listener is used instead of Listen when it is not nil; Run closes it.
	Listener net.Listener

	// TLS is how connections are made, for HTTP/1.1; its GetConfigForClient may give each another certificate. Default: no TLS.
	TLS *tls.Config
	// Admit is asked before each request, the probes /healthz, /readyz and /metrics excepted, with the pattern that it matched,
	// "" for none. What it returns is served; its error, a problem, is the answer. Default: everyone is let in.
	Admit func(r *http.Request, pattern string) (*http.Request, error)

	// DrainTimeout is how long requests under way may take after the host was told to stop. Default: 15 s.
	DrainTimeout time.Duration
	// StopTimeout is how long all services together may take to stop after that. Default: 15 s.
	StopTimeout time.Duration
	// ReadyTimeout bounds each check of /readyz. Default: 2 s.
	ReadyTimeout time.Duration
	// ReadHeaderTimeout is how long a client may take to send a request's head. Default: 10 s.
	ReadHeaderTimeout time.Duration
	// IdleTimeout is how long an idle connection is kept. Default: 2 min.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds a request's head. Default: 64 KiB.
	MaxHeaderBytes int

	// Logger receives starts and stops at info, requests at debug, panics and failed stops at error. Default: none.
	Logger *slog.Logger
	// Metrics serves /metrics and counts requests. Default: neither.
	Metrics *Metrics
	// TracerProvider receives a span for each request. Default: none; trace contexts are passed on all the same.
	TracerProvider trace.TracerProvider
	// RequestContext adds to the context of each request what libraries look for there, given the request's id.
	// Default: nothing.
	RequestContext func(ctx context.Context, requestID string) context.Context
	// Middleware goes around the services' handlers, within what the host itself does for each request. Default: nothing.
	Middleware func(http.Handler) http.Handler
	// OnFailure is told of each request that the node itself failed at, before the next one of its connection is read: it
	// must not wait. Default: nobody is told.
	OnFailure func(ctx context.Context, f Failure)
	// Version is named in the OpenAPI document. Default: "devel".
	Version string
}

func (c Config) withDefaults() Config {
	c.Listen = cmp.Or(c.Listen, "127.0.0.1:3500")
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 15*time.Second)
	c.StopTimeout = cmp.Or(c.StopTimeout, 15*time.Second)
	c.ReadyTimeout = cmp.Or(c.ReadyTimeout, 2*time.Second)
	c.ReadHeaderTimeout = cmp.Or(c.ReadHeaderTimeout, 10*time.Second)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 2*time.Minute)
	c.MaxHeaderBytes = cmp.Or(c.MaxHeaderBytes, 64<<10)
	c.Version = cmp.Or(c.Version, "devel")
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.TracerProvider == nil {
		c.TracerProvider = tracenoop.NewTracerProvider()
	}
	return c
}

// ErrUsed is what Run returns when it was called before, and Add when it comes too late: a Host runs once.
var ErrUsed = errors.New("the host has been run already")

// A Host runs services on one listener. Its methods are safe for concurrent use.
type Host struct {
	cfg     Config
	mux     *http.ServeMux
	handler http.Handler
	local   http.Handler // handler for calls within the process
	flights atomic.Int64 // requests under way, from outside
	phase   atomic.Int32

	mu           sync.Mutex
	services     []Service
	dependencies []dependency
	used         bool

	listening chan struct{} // closed when addr is set
	addr      net.Addr
	ready     chan struct{}   // closed when every service has started
	hard      context.Context //nolint:containedctx // the life of the host's requests, ended by HardStop
	hardStop  context.CancelFunc
	document  func() ([]byte, error) // the merged OpenAPI document
}

// The phases of a host, in order.
const (
	phaseNew int32 = iota
	phaseStarting
	phaseServing
	phaseDraining
	phaseStopped
)

// New makes a host without services. It does not listen yet.
func New(cfg Config) (*Host, error) {
	h := &Host{
		cfg:       cfg.withDefaults(),
		mux:       http.NewServeMux(),
		listening: make(chan struct{}),
		ready:     make(chan struct{}),
	}
	h.hard, h.hardStop = context.WithCancel(context.Background())
	h.document = sync.OnceValues(h.mergeDocuments)
	h.mountOwn()
	route := http.Handler(http.HandlerFunc(h.route))
	if h.cfg.Middleware != nil {
		route = h.cfg.Middleware(route)
	}
	handler, err := h.middleware(route)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	h.local, h.handler = handler, h.counted(handler)
	return h, nil
}

// Add adds a service. Its place in the order follows from DependsOn.
func (h *Host) Add(s Service) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.used {
		return fmt.Errorf("host: add service %q: %w", s.Name(), ErrUsed)
	}
	h.services = append(h.services, s)
	return nil
}

// AddDependency adds something that the program needs from outside, to be checked by /readyz.
func (h *Host) AddDependency(name string, check func(ctx context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dependencies = append(h.dependencies, dependency{name: name, check: check})
}

// Handler serves what the listener serves, for another listener.
func (h *Host) Handler() http.Handler { return h.handler }

// Local serves what the listener serves, for calls within the process. They are not in InFlight: the request or the client that causes them is, and
// what a handler of the bus or a saga calls of its own node is not.
func (h *Host) Local() http.Handler { return h.local }

// Addr is where the host listens, nil before it does.
func (h *Host) Addr() net.Addr {
	select {
	case <-h.listening:
		return h.addr
	default:
		return nil
	}
}

// Listening is closed when Addr is known.
func (h *Host) Listening() <-chan struct{} { return h.listening }

// Started is closed when every service has started.
func (h *Host) Started() <-chan struct{} { return h.ready }

// InFlight is how many requests from outside the process are being served, those of Busy services among them.
func (h *Host) InFlight() int {
	n := int(h.flights.Load())
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.services {
		if busy, is := s.(Busy); is {
			n += busy.InFlight()
		}
	}
	return n
}

// HardStop makes a stop that is under way, or yet to come, wait for nothing: connections are closed, and services are
// stopped with a context that has ended.
func (h *Host) HardStop() { h.hardStop() }

// Run listens, starts the services, serves until ctx ends, drains and stops. It returns nil after a stop that was asked
// for, however short HardStop cut it, unless a service failed to stop; what could not be started is an error, and
// everything that was started has been stopped by then. It may be called once.
func (h *Host) Run(ctx context.Context) error {
	services, err := h.take()
	if err != nil {
		return err
	}
	defer h.hardStop()
	// What is left to do once ctx has ended is bounded by this.
	ending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(h.hard, cancel)() //nolint:contextcheck // HardStop has a context of its own
	listener, err := h.listen(ctx)
	if err != nil {
		return err
	}
	server := h.server()
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	h.phase.Store(phaseStarting)
	started, err := h.start(ctx, services)
	if err != nil {
		h.phase.Store(phaseStopped)
		_ = server.Close()
		if closed := <-served; !errors.Is(closed, http.ErrServerClosed) {
			err = errors.Join(err, closed)
		}
		return errors.Join(err, h.stop(ending, started))
	}
	if len(started) == len(services) {
		h.phase.Store(phaseServing)
		close(h.ready)
		h.cfg.Logger.Info("serving", "address", listener.Addr().String(), "services", names(services))
	}

	select {
	case <-ctx.Done():
	case err = <-served: // never nil
		err = fmt.Errorf("host: serve: %w", err)
	}
	h.drain(ending, server, started)
	stopErr := h.stop(ending, started)
	h.phase.Store(phaseStopped)
	return errors.Join(err, stopErr)
}

// take ends the time of adding: it orders the services and mounts them.
func (h *Host) take() ([]Service, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.used {
		return nil, fmt.Errorf("host: run: %w", ErrUsed)
	}
	h.used = true
	services, err := inOrder(h.services)
	if err != nil {
		return nil, err
	}
	h.services = services
	for _, s := range services {
		if err := mount(h.mux, s); err != nil {
			return nil, err
		}
	}
	return services, nil
}

// mount turns the panic of a mux about conflicting patterns into an error.
func mount(mux *http.ServeMux, s Service) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("host: mount service %q: %v", s.Name(), p)
		}
	}()
	if err := s.Mount(mux); err != nil {
		return fmt.Errorf("host: mount service %q: %w", s.Name(), err)
	}
	return nil
}

func (h *Host) listen(ctx context.Context) (net.Listener, error) {
	listener := h.cfg.Listener
	if listener == nil {
		var err error
		var config net.ListenConfig
		if listener, err = config.Listen(ctx, "tcp", h.cfg.Listen); err != nil {
			return nil, fmt.Errorf("host: listen: %w", err)
		}
	}
	h.addr = listener.Addr()
	close(h.listening)
	if h.cfg.TLS != nil {
		listener = tls.NewListener(listener, h.cfg.TLS)
	}
	return listener, nil
}

func (h *Host) server() *http.Server {
	return &http.Server{
		Handler:           h.handler,
		ReadHeaderTimeout: h.cfg.ReadHeaderTimeout,
		IdleTimeout:       h.cfg.IdleTimeout,
		MaxHeaderBytes:    h.cfg.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(h.cfg.Logger.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return h.hard },
	}
}

// start starts the services in order, and returns those that it started. Requests are taken from when all have started
// that do not announce the node. It goes no further when one fails or when the host is told to stop.
func (h *Host) start(ctx context.Context, services []Service) (started []Service, err error) {
	for _, s := range services {
		begin := time.Now()
		err := ctx.Err()
		if err == nil {
			if announces(s) {
				h.phase.Store(phaseServing)
			}
			err = s.Start(ctx)
		}
		switch {
		case err != nil && ctx.Err() != nil:
			return started, nil //nolint:nilerr // told to stop is no failure: Run goes on to the end
		case err != nil:
			return started, fmt.Errorf("host: start service %q: %w", s.Name(), err)
		}
		started = append(started, s)
		h.cfg.Logger.Debug("service started", "service", s.Name(), "took", time.Since(begin))
	}
	return started, nil
}

// drain takes announcements back, then lets the requests under way finish. The context is ended by HardStop only.
func (h *Host) drain(ctx context.Context, server *http.Server, started []Service) {
	h.phase.Store(phaseDraining)
	h.cfg.Logger.Info("draining", "requests", h.InFlight(), "timeout", h.cfg.DrainTimeout)
	ctx, cancel := context.WithTimeout(ctx, h.cfg.DrainTimeout)
	defer cancel()
	var hooks sync.WaitGroup
	for _, s := range started {
		if d, ok := s.(Drainer); ok {
			hooks.Go(func() { d.Drain(ctx) })
		}
	}
	hooks.Wait()
	if err := server.Shutdown(ctx); err != nil {
		h.cfg.Logger.Warn("requests were cut off", "requests", h.InFlight(), "after", h.cfg.DrainTimeout)
		_ = server.Close()
	}
}

// stop stops services in reverse order. The context is ended by HardStop only.
func (h *Host) stop(ctx context.Context, started []Service) error {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.StopTimeout)
	defer cancel()
	var errs []error
	for i := len(started) - 1; i >= 0; i-- {
		s := started[i]
		if err := s.Stop(ctx); err != nil {
			h.cfg.Logger.Error("service did not stop cleanly", "service", s.Name(), "error", err)
			errs = append(errs, fmt.Errorf("host: stop service %q: %w", s.Name(), err))
			continue
		}
		h.cfg.Logger.Debug("service stopped", "service", s.Name())
	}
	return errors.Join(errs...)
}

func names(services []Service) []string {
	list := make([]string, len(services))
	for i, s := range services {
		list[i] = s.Name()
	}
	return list
}
