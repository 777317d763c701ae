package permissions

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/host"
)

//go:embed openapi.yaml
var document []byte

// Config describes a Service.
type Config struct {
	// Factory has the stores ServiceStore and SessionStore. Required.
	Factory *state.Factory
	// Bus tells of services and sessions, and hears of capabilities. Required.
	Bus *bus.Bus

	// SessionTTL is how long a session is remembered of which nothing is heard. Default: 90 days, as long as one lives.
	SessionTTL time.Duration
	// Timeout bounds the work of one request. Default: 10 s.
	Timeout time.Duration
	// MaxBodyBytes bounds a request. Default: 1 MiB.
	MaxBodyBytes int64
	// Logger hears of registrations that come too late. Default: none.
	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// A Service is the permissions service of a host.
type Service struct {
	host.Base
	cfg   Config
	locks [stripes]sync.Mutex // by session
	index index

	recomputing chan struct{} // has room for one
}

// New makes the service and subscribes it.
func New(cfg Config) (*Service, error) {
	if cfg.Factory == nil || cfg.Bus == nil {
		return nil, errors.New("permissions: the service needs a factory and a bus")
	}
	cfg.SessionTTL = cmp.Or(cfg.SessionTTL, 90*24*time.Hour)
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.MaxBodyBytes = cmp.Or(cfg.MaxBodyBytes, 1<<20)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Service{cfg: cfg, index: index{cfg.Factory, cfg.Now}, recomputing: make(chan struct{}, 1)}
	return s, s.subscribe()
}

// Name is "permissions".
func (s *Service) Name() string { return "permissions" }

// OpenAPI is the service's document.
func (s *Service) OpenAPI() []byte { return document }

// Ready reports a catalogue that cannot be read.
func (s *Service) Ready(ctx context.Context) error {
	_, _, err := s.catalogue(ctx)
	return err
}
