package mesh

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/mesh"
	"github.com/bannou-mesh/bannou/services/egress"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/mesh/meshapi"
	"github.com/bannou-mesh/bannou/services/problem"
)

//go:embed openapi.yaml
var document []byte

// Config describes a Service.
type Config struct {
	// Registry is who is there and which service is where. Required.
	Registry *mesh.Registry
	// Client chooses instances and passes calls through. Required; the program runs its directory.
	Client *mesh.Client
	// Policy says which hosts may be registered over HTTP. Required. What is announced on the bus is trusted: whoever
	// publishes there is one of the suite.
	Policy *egress.Policy
	// Bus is listened to for programs that announce themselves only there. Default: nobody does.
	Bus *bus.Bus

	// Prober asks instances whether they live; the service runs it. Default: none does.
	Prober *mesh.Prober

	// SweepInterval is how often instances that went quiet are looked for. Default: 10 s.
	SweepInterval time.Duration
	// Timeout bounds the work on the registry of one request. Default: 5 s.
	Timeout time.Duration
	// MaxBodyBytes bounds a request, those that are passed through excepted. Default: 1 MiB.
	MaxBodyBytes int64
	// Logger hears of sweeps that failed. Default: nobody.
	Logger *slog.Logger
}

// A Service is the mesh service of a host.
type Service struct {
	host.Base
	cfg   Config
	end   context.CancelFunc
	tasks sync.WaitGroup // sweeping and probing
}

var _ meshapi.StrictServerInterface = (*Service)(nil)

// New makes the service, and registers its handlers on the bus: call it before the bus runs.
func New(cfg Config) (*Service, error) {
	if cfg.Registry == nil || cfg.Client == nil || cfg.Policy == nil {
		return nil, errors.New("mesh: the service needs a registry, a client and an egress policy")
	}
	cfg.SweepInterval = cmp.Or(cfg.SweepInterval, 10*time.Second)
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	cfg.MaxBodyBytes = cmp.Or(cfg.MaxBodyBytes, 1<<20)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg}
	if cfg.Bus != nil {
		if err := s.listen(cfg.Bus); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Name is "mesh".
func (s *Service) Name() string { return "mesh" }

// OpenAPI is the service's document.
func (s *Service) OpenAPI() []byte { return document }

// Ready reports whether the registry answers.
func (s *Service) Ready(ctx context.Context) error {
	_, err := s.cfg.Registry.Mappings(ctx)
	return err
}

// Mount registers /mesh/*, /orchestrator/* and the pass-through.
func (s *Service) Mount(mux *http.ServeMux) error {
	strict := meshapi.NewStrictHandlerWithOptions(s, []meshapi.StrictMiddlewareFunc{s.bounded}, meshapi.StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  jsonbody.WriteDecodeError,
		ResponseErrorHandlerFunc: jsonbody.WriteError,
	})
	meshapi.HandlerWithOptions(strict, meshapi.StdHTTPServerOptions{
		BaseRouter:       mux,
		Middlewares:      []meshapi.MiddlewareFunc{jsonbody.Middleware(jsonbody.Limits{MaxBytes: s.cfg.MaxBodyBytes})},
		ErrorHandlerFunc: jsonbody.WriteDecodeError,
	})
	mux.Handle("/v1.0/invoke/{appId}/method/{method...}", mesh.NewProxy(s.cfg.Client, mesh.ProxyConfig{
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) { problem.Write(w, proxyProblem(err)) },
	}))
	return nil
}

// bounded gives each operation its deadline, and turns errors of the mesh into problems.
func (s *Service) bounded(next meshapi.StrictHandlerFunc, _ string) meshapi.StrictHandlerFunc {
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, request any) (any, error) {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
		response, err := next(ctx, w, r, request)
		if err != nil {
			return nil, meshProblem(err)
		}
		return response, nil
	}
}

// Start begins to look for instances that went quiet, and to probe if there is a prober.
func (s *Service) Start(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	s.end = end
	s.tasks.Go(func() { s.keepSweeping(life) })
	if s.cfg.Prober != nil {
		s.tasks.Go(func() { s.cfg.Prober.Run(life) })
	}
	return nil
}

// Stop ends what Start began.
func (s *Service) Stop(context.Context) error {
	s.end()
	s.tasks.Wait()
	return nil
}

func (s *Service) keepSweeping(life context.Context) {
	ticker := time.NewTicker(s.cfg.SweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-life.Done():
			return
		case <-ticker.C:
		}
		ctx, cancel := context.WithTimeout(life, max(s.cfg.SweepInterval, s.cfg.Timeout))
		if err := s.cfg.Registry.Sweep(ctx); err != nil && life.Err() == nil {
			s.cfg.Logger.Warn("the registry could not be swept; trying again", "error", err)
		}
		if err := s.restore(ctx); err != nil && life.Err() == nil {
			s.cfg.Logger.Warn("the mappings that this node goes by could not be compared with the registry's; trying again", "error", err)
		}
		cancel()
	}
}

// restore writes the mappings that this node goes by into a registry that lost its memory: a node that starts then would send the calls of
// every service to the default app-id, and what is set then would count from the first version on, which no node would heed.
func (s *Service) restore(ctx context.Context) error {
	m := s.cfg.Client.Directory().Mappings()
	if m.Version == 0 {
		return nil
	}
	restored, err := s.cfg.Registry.ApplyMappings(ctx, m)
	if errors.Is(err, mesh.ErrInvalid) {
		return nil // its version counts on from the highest that is taken over: it keeps nobody from setting the next
	}
	if restored {
		s.cfg.Logger.Warn("the registry had older mappings than this node, or none; it has this node's now", "version", m.Version)
	}
	return err
}
