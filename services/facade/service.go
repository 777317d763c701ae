package facade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/host"
)

// Config describes a Service.
type Config struct {
	// Listener is where the API is served; Stop closes it. Required.
	Listener net.Listener
	// AppID is the app's name. Required.
	AppID string
	// GRPCListener is where the gRPC API is served beside it; Stop closes it. Default: it is not.
	GRPCListener net.Listener
	// AppAddress is host:port where the app listens for events and calls. Default: it does not.
	AppAddress string
	// AppProtocol is what the app speaks there: http or grpc. Default: http.
	AppProtocol string
	// Calls is where the facade takes the calls of others for an app that speaks gRPC, over HTTP as any call in the mesh; Stop closes it. Default: nowhere, and
	// only the node's own programs reach such an app.
	Calls net.Listener
	// Client passes calls on to other apps. Required.
	Client *mesh.Client

	// Stores, PubSubs and Secrets are the components by the names that the app knows. A lock store is a store.
	Stores  map[string]StateStore
	PubSubs map[string]PubSub
	Secrets map[string]SecretStore
	// Subscriptions are those that files declare, beside those that the app names itself.
	Subscriptions []Subscription

	// Token is what callers show in the header dapr-api-token. Default: none is asked for.
	Token string
	// AppToken is shown to the app in the same header. Default: none.
	AppToken string

	// Retries is how often an event is delivered again that the app failed at, each time after RetryDelay, before it is a dead letter. 0: not at
	// all, as Dapr without a resiliency policy.
	Retries    int
	RetryDelay time.Duration

	// AppTimeout bounds the delivery of an event, and the question for subscriptions; an invocation ends when its caller has gone. Default: 60 s.
	AppTimeout time.Duration
	// MaxBodyBytes bounds a request. Default: 4 MiB, as Dapr.
	MaxBodyBytes int64
	// Version is named in the metadata.
	Version string
	// Shutdown ends the node, for POST /v1.0/shutdown. Default: it is refused.
	Shutdown func()
	// Logger hears of deliveries that failed. Default: nobody.
	Logger *slog.Logger
}

// A Service is a facade. It has a listener of its own, beside that of the host that runs it.
type Service struct {
	host.Base
	cfg     Config
	channel channel // to the app; nil: it does not listen
	server  *http.Server
	grpc    *grpc.Server // nil: it is not served
	calls   *http.Server // nil: there are none

	mu         sync.Mutex
	deliveries []*delivery
	streams    []*delivery // those that the app opened itself
	pending    error       // why the app is not subscribed yet; nil: it is
	extended   map[string]string

	end      context.CancelFunc
	stopping chan struct{} // closed by Stop
	work     sync.WaitGroup
	served   []chan error
}

// New checks the configuration.
func New(cfg Config) (*Service, error) {
	if cfg.Listener == nil || cfg.AppID == "" || cfg.Client == nil {
		return nil, errors.New("facade: it needs a listener, an app-id and a client of the mesh")
	}
	cfg.AppTimeout = cmp.Or(cfg.AppTimeout, time.Minute)
	cfg.MaxBodyBytes = cmp.Or(cfg.MaxBodyBytes, 4<<20)
	cfg.RetryDelay = cmp.Or(cfg.RetryDelay, 5*time.Second)
	cfg.Version = cmp.Or(cfg.Version, "devel")
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, extended: map[string]string{}, stopping: make(chan struct{})}
	var err error
	switch {
	case cfg.AppAddress == "":
	case cfg.AppProtocol == "" || cfg.AppProtocol == protocolHTTP:
		s.channel = newHTTPChannel(s)
	case cfg.AppProtocol == protocolGRPC:
		s.channel, err = newGRPCChannel(s)
	default:
		err = fmt.Errorf("facade: an app speaks http or grpc, not %q", cfg.AppProtocol)
	}
	if err != nil {
		return nil, err
	}
	s.server = s.newServer(s.routes())
	if cfg.GRPCListener != nil {
		s.grpc = s.newGRPCServer()
	}
	if cfg.Calls != nil {
		s.calls = s.newServer(s.takenCalls())
	}
	return s, nil
}

// What an app speaks.
const (
	protocolHTTP = "http"
	protocolGRPC = "grpc"
)

func (s *Service) newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
}

// Name is "facade".
func (s *Service) Name() string { return "facade" }

// Addr is where the API is served.
func (s *Service) Addr() net.Addr { return s.cfg.Listener.Addr() }

// Ready reports whether the app is subscribed to what it asked for.
func (s *Service) Ready(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending != nil {
		return host.Degraded(s.pending)
	}
	return nil
}

// Start serves the API, and asks the app what it subscribes to, which may take as long as the app takes to start.
func (s *Service) Start(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	s.end = end
	s.serve(func() error { return s.server.Serve(s.cfg.Listener) })
	if s.grpc != nil {
		s.serve(func() error { return s.grpc.Serve(s.cfg.GRPCListener) })
	}
	if s.calls != nil {
		s.serve(func() error { return s.calls.Serve(s.cfg.Calls) })
	}
	if s.channel != nil {
		s.note(errors.New("the app was not asked for its subscriptions yet"))
		s.work.Go(func() { s.subscribing(life) })
	}
	return nil
}

// Stop ends deliveries, then the API: a handler of the app that is at work may use it until it has answered.
func (s *Service) Stop(ctx context.Context) error {
	s.end()
	close(s.stopping)
	s.work.Wait()
	s.mu.Lock()
	deliveries := s.deliveries
	s.deliveries = nil
	s.mu.Unlock()
	var errs []error
	for _, d := range deliveries {
		errs = append(errs, d.end(ctx))
	}
	if s.grpc != nil {
		s.endGRPC(ctx)
	}
	for _, server := range []*http.Server{s.calls, s.server} {
		if server == nil {
			continue
		}
		if err := server.Shutdown(ctx); err != nil {
			errs = append(errs, err, server.Close())
		}
	}
	for _, served := range s.served {
		if err := <-served; err != nil && !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, fmt.Errorf("facade: serve: %w", err))
		}
	}
	if s.channel != nil {
		s.channel.close()
	}
	return errors.Join(errs...)
}

func (s *Service) serve(run func() error) {
	served := make(chan error, 1)
	s.served = append(s.served, served)
	go func() { served <- run() }()
}

// endGRPC waits for calls that are under way, as long as there is time.
func (s *Service) endGRPC(ctx context.Context) {
	defer context.AfterFunc(ctx, s.grpc.Stop)()
	s.grpc.GracefulStop()
}

// takenCalls takes calls from the mesh for an app that speaks gRPC.
func (s *Service) takenCalls() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.channel == nil {
			s.answerError(w, r, refuse(http.StatusNotFound, "ERR_DIRECT_INVOKE", "there is no app here"))
			return
		}
		s.channel.invoke(w, r, strings.TrimPrefix(r.URL.EscapedPath(), "/"))
	})
}
