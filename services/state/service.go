package state

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/host"
)

//go:embed openapi.yaml
var document []byte

// Config describes a Service.
type Config struct {
	// Factory has the stores. Required.
	Factory *state.Factory
	// Internal names stores that the program keeps for itself: they are neither listed nor opened. Default: none.
	Internal []string

	// Access says who may use which stores. Default: everyone, all.
	Access *guard.Access

	// MeterProvider receives the metric bannou.state.refusals. Default: none.
	MeterProvider metric.MeterProvider

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
	counts   *counts
	refusals refusals
}

// New makes the service. Stores are opened when they are first asked for.
func New(cfg Config) (*Service, error) {
	if cfg.Factory == nil {
		return nil, errors.New("state: the service needs a factory")
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.MaxBodyBytes = cmp.Or(cfg.MaxBodyBytes, 8<<20)
	refusals, err := newRefusals(cfg.MeterProvider)
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, internal: map[string]bool{}, counts: newCounts(cfg.Factory, countWait), refusals: refusals}
	for _, name := range cfg.Internal {
		s.internal[name] = true
	}
	return s, nil
}

// Name is "state".
func (s *Service) Name() string { return "state" }

// OpenAPI is the service's document.
func (s *Service) OpenAPI() []byte { return document }

// Stop ends the counting of stores.
func (s *Service) Stop(context.Context) error {
	s.counts.close()
	return nil
}

// Ready reports the backends that do not answer.
func (s *Service) Ready(ctx context.Context) error { return s.cfg.Factory.Ready(ctx) }
