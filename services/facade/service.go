package facade

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/host"
)

// Config describes a Service.
type Config struct {
	// Listener is where the API is served; Stop closes it. Required.
	Listener net.Listener
	// AppID is the app's name. Required.
	AppID string
	// AppAddress is host:port where the app listens for events and calls. Default: it does not.
	AppAddress string
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

	// AppTimeout bounds a call of the app. Default: 60 s.
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
	cfg    Config
	app    *http.Client
	server *http.Server

	mu         sync.Mutex
	deliveries []*delivery
	pending    error // why the app is not subscribed yet; nil: it is
	extended   map[string]string

	end    context.CancelFunc
	work   sync.WaitGroup
	served chan error
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
	s := &Service{cfg: cfg, extended: map[string]string{}, served: make(chan error, 1)}
	s.app = &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 100, IdleConnTimeout: time.Minute, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s.server = &http.Server{
		Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s, nil
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
	go func() { s.served <- s.server.Serve(s.cfg.Listener) }()
	if s.cfg.AppAddress != "" {
		s.note(errors.New("the app was not asked for its subscriptions yet"))
		s.work.Go(func() { s.subscribing(life) })
	}
	return nil
}

// Stop ends deliveries, then the API: a handler of the app that is at work may use it until it has answered.
func (s *Service) Stop(ctx context.Context) error {
	s.end()
	s.work.Wait()
	s.mu.Lock()
	deliveries := s.deliveries
	s.deliveries = nil
	s.mu.Unlock()
	var errs []error
	for _, d := range deliveries {
		errs = append(errs, d.end(ctx))
	}
	if err := s.server.Shutdown(ctx); err != nil {
		errs = append(errs, err, s.server.Close())
	}
	if err := <-s.served; !errors.Is(err, http.ErrServerClosed) {
		errs = append(errs, fmt.Errorf("facade: serve: %w", err))
	}
	s.app.CloseIdleConnections()
	return errors.Join(errs...)
}

// toApp is a request to the app.
func (s *Service) toApp(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+s.cfg.AppAddress+"/"+strings.TrimPrefix(path, "/"), body)
	if err != nil {
		return nil, fmt.Errorf("the app cannot be called at %q: %w", path, err)
	}
	request.Header.Set("User-Agent", "bannou")
	if s.cfg.AppToken != "" {
		request.Header.Set(headerToken, s.cfg.AppToken)
	}
	return request, nil
}
