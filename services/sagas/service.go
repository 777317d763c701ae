package sagas

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/bannou-mesh/bannou/sagas"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/sagas/sagasapi"
)

//go:embed openapi.yaml
var document []byte

// Config describes a Service.
type Config struct {
	// Engine is what the service runs and shows. Default: none, and no saga is there.
	Engine *sagas.Engine
	// Timeout bounds one request. Default: 10 s.
	Timeout time.Duration
	// MaxBodyBytes bounds a request. Default: 64 KiB.
	MaxBodyBytes int64
	// Logger hears of what people ask for, and of an engine that ends. Default: nobody.
	Logger *slog.Logger
}

// A Service is the sagas service of a host.
type Service struct {
	host.Base
	cfg Config

	end   context.CancelFunc
	ended chan error
}

var _ sagasapi.StrictServerInterface = (*Service)(nil)

// New makes the service.
func New(cfg Config) *Service {
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.MaxBodyBytes = cmp.Or(cfg.MaxBodyBytes, 64<<10)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg}
}

// Name is "sagas".
func (s *Service) Name() string { return "sagas" }

// OpenAPI is the service's document.
func (s *Service) OpenAPI() []byte { return document }

// Mount registers /sagas/*.
func (s *Service) Mount(mux *http.ServeMux) error {
	strict := sagasapi.NewStrictHandlerWithOptions(s, []sagasapi.StrictMiddlewareFunc{s.bounded}, sagasapi.StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  jsonbody.WriteDecodeError,
		ResponseErrorHandlerFunc: jsonbody.WriteError,
	})
	sagasapi.HandlerWithOptions(strict, sagasapi.StdHTTPServerOptions{
		BaseRouter:       mux,
		Middlewares:      []sagasapi.MiddlewareFunc{jsonbody.Middleware(jsonbody.Limits{MaxBytes: s.cfg.MaxBodyBytes})},
		ErrorHandlerFunc: jsonbody.WriteDecodeError,
	})
	return nil
}

// bounded gives each operation its deadline, and turns errors of the engine into problems.
func (s *Service) bounded(next sagasapi.StrictHandlerFunc, _ string) sagasapi.StrictHandlerFunc {
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, request any) (any, error) {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
		response, err := next(ctx, w, r, request)
		if err != nil {
			return nil, sagaProblem(err)
		}
		return response, nil
	}
}

// Start runs the engine.
func (s *Service) Start(ctx context.Context) error {
	if s.cfg.Engine == nil {
		return nil
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	s.end, s.ended = end, make(chan error, 1)
	go func() {
		err := s.cfg.Engine.Run(life)
		if err != nil && life.Err() == nil {
			s.cfg.Logger.ErrorContext(life, "the sagas of this node have ended", "error", err)
		}
		s.ended <- err
	}()
	return nil
}

// Stop ends the engine. What is under way is gone on with by other nodes, or by the next start.
func (s *Service) Stop(ctx context.Context) error {
	if s.end == nil {
		return nil
	}
	s.end()
	select {
	case err := <-s.ended:
		return err
	case <-ctx.Done():
		return errors.Join(ctx.Err(), errors.New("sagas: what is under way has not ended in time"))
	}
}
