package accounts

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/relay"
)

//go:embed openapi.yaml
var document []byte

// announcing is the name of the relay, by which it goes on in another process.
const announcing = "accounts.announce"

// Config describes a Service.
type Config struct {
	// Log keeps what happens to accounts. Required.
	Log *eventstore.Store
	// Factory has the store ListStore. Required.
	Factory *state.Factory
	// Bus hears of accounts. Required.
	Bus *bus.Bus

	// Lease is how long what a process does that follows the log is left alone when it says nothing. Default: that of the log.
	Lease time.Duration
	// Timeout bounds the work of one request. Default: 10 s.
	Timeout time.Duration
	// MaxBodyBytes bounds a request. Default: 64 KiB.
	MaxBodyBytes int64

	// Logger hears of a list that cannot be kept, and of a broker that is away. Default: none.
	Logger *slog.Logger
	// MeterProvider receives the metrics of the relay of account.*. Default: none.
	MeterProvider metric.MeterProvider
}

// A Service is the accounts service of a host.
type Service struct {
	host.Base
	cfg      Config
	types    *eventstore.Types
	accounts *eventstore.Aggregate[account]

	relay       *relay.Log
	projections atomic.Pointer[projection.Set] // nil: not yet
	end         context.CancelFunc
	background  sync.WaitGroup
}

// New makes the service. Nothing is read before Start.
func New(cfg Config) (*Service, error) {
	if cfg.Log == nil || cfg.Factory == nil || cfg.Bus == nil {
		return nil, errors.New("accounts: the service needs a log, a factory and a bus")
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.MaxBodyBytes = cmp.Or(cfg.MaxBodyBytes, 64<<10)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	types, err := newTypes()
	if err != nil {
		return nil, err
	}
	accounts, err := eventstore.NewAggregate(cfg.Log, eventstore.AggregateConfig[account]{Category: category, Types: types, Apply: (*account).apply})
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, types: types, accounts: accounts}
	s.relay, err = relay.NewLog(relay.LogConfig{Store: cfg.Log, Bus: cfg.Bus, Name: announcing, Category: category, Messages: s.announced,
		MeterProvider: cfg.MeterProvider, Logger: cfg.Logger, Lease: cfg.Lease})
	return s, err
}

// Name is "accounts".
func (s *Service) Name() string { return "accounts" }

// OpenAPI is the service's document.
func (s *Service) OpenAPI() []byte { return document }

// Start begins to follow the log.
func (s *Service) Start(ctx context.Context) error {
	if err := s.relay.Start(ctx); err != nil {
		return err
	}
	var life context.Context
	life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.background.Go(func() { s.keepList(life) })
	return nil
}

// Stop ends that.
func (s *Service) Stop(ctx context.Context) error {
	s.end()
	s.background.Wait()
	err := s.relay.Stop(ctx)
	if set := s.projections.Load(); set != nil {
		err = errors.Join(err, set.Close(ctx))
	}
	return err
}

// Ready reports a log that does not answer, and a broker that does not hear of accounts.
func (s *Service) Ready(ctx context.Context) error {
	if _, err := s.cfg.Log.Head(ctx); err != nil {
		return err
	}
	return s.relay.Ready(ctx)
}

// Figures are those of the relay.
func (s *Service) Figures() map[string]float64 { return s.relay.Figures() }
