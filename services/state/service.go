package state

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"net/http"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/state/stateapi"
)

//go:embed openapi.yaml
var document []byte

// Config describes a Service.
type Config struct {
	// Factory has the stores. Required.
	Factory *state.Factory
	// Internal names stores that the program keeps for itself: they are neither listed nor opened. Default: none.
	Internal []string

	// Timeout bounds the work on the store of one request. Default: 10 s.
	Timeout time.Duration
	// MaxBodyBytes bounds a request. Default: 8 MiB, a value of the largest size with room for its surroundings.
	MaxBodyBytes int64
}

// A Service is the state service of a host.
type Service struct {
	host.Base
	cfg      Config
	internal map[string]bool
}

var _ stateapi.StrictServerInterface = (*Service)(nil)

// New makes the service. Stores are opened when they are first asked for.
func New(cfg Config) (*Service, error) {
	if cfg.Factory == nil {
		return nil, errors.New("state: the service needs a factory")
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.MaxBodyBytes = cmp.Or(cfg.MaxBodyBytes, 8<<20)
	s := &Service{cfg: cfg, internal: map[string]bool{}}
	for _, name := range cfg.Internal {
		s.internal[name] = true
	}
	return s, nil
}

// Name is "state".
func (s *Service) Name() string { return "state" }

// OpenAPI is the service's document.
func (s *Service) OpenAPI() []byte { return document }

// Ready reports the backends that do not answer.
func (s *Service) Ready(ctx context.Context) error { return s.cfg.Factory.Ready(ctx) }

// Mount registers /state/*.
func (s *Service) Mount(mux *http.ServeMux) error {
	strict := stateapi.NewStrictHandlerWithOptions(s, []stateapi.StrictMiddlewareFunc{s.bounded}, stateapi.StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  jsonbody.WriteDecodeError,
		ResponseErrorHandlerFunc: jsonbody.WriteError,
	})
	stateapi.HandlerWithOptions(strict, stateapi.StdHTTPServerOptions{
		BaseRouter:       mux,
		Middlewares:      []stateapi.MiddlewareFunc{jsonbody.Middleware(jsonbody.Limits{MaxBytes: s.cfg.MaxBodyBytes})},
		ErrorHandlerFunc: jsonbody.WriteDecodeError,
	})
	return nil
}

// bounded gives each operation its deadline, and turns errors of the state layer into problems.
func (s *Service) bounded(next stateapi.StrictHandlerFunc, _ string) stateapi.StrictHandlerFunc {
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, request any) (any, error) {
		ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		defer cancel()
		response, err := next(ctx, w, r, request)
		if err != nil {
			return nil, stateProblem(err)
		}
		return response, nil
	}
}
