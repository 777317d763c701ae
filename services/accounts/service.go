package accounts

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
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/host"
)

//go:embed openapi.yaml
var document []byte

// Names of the subscriptions, by which they go on in another process.
const (
	announcing = "accounts.announce"
	listing    = "accounts.list"
)

// Config describes a Service.
type Config struct {
	// Log keeps what happens to accounts. Required.
	Log *eventstore.Store
	// Factory has the store ListStore. Required.
	Factory *state.Factory
	// Bus hears of accounts. Required.
	Bus *bus.Bus

	// EraseAfter is how long a deleted account's events are kept. Negative: until they are erased by hand. Default: 30 days.
	EraseAfter time.Duration
	// SweepInterval is how often is looked for those whose time is over. Default: 1 h.
	SweepInterval time.Duration
	// Timeout bounds the work of one request. Default: 10 s.
	Timeout time.Duration
	// MaxBodyBytes bounds a request. Default: 64 KiB.
	MaxBodyBytes int64

	// Logger hears of accounts that could not be erased. Default: none.
	Logger *slog.Logger
}

// A Service is the accounts service of a host.
type Service struct {
	host.Base
	cfg      Config
	types    *eventstore.Types
	accounts *eventstore.Aggregate[account]

	subscriptions []*eventstore.Subscription
	end           context.CancelFunc
	background    sync.WaitGroup
}

// New makes the service. Nothing is read before Start.
func New(cfg Config) (*Service, error) {
	if cfg.Log == nil || cfg.Factory == nil || cfg.Bus == nil {
		return nil, errors.New("accounts: the service needs a log, a factory and a bus")
	}
	cfg.EraseAfter = cmp.Or(cfg.EraseAfter, 30*24*time.Hour)
	cfg.SweepInterval = cmp.Or(cfg.SweepInterval, time.Hour)
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
	return &Service{cfg: cfg, types: types, accounts: accounts}, nil
}

// Name is "accounts".
func (s *Service) Name() string { return "accounts" }

// OpenAPI is the service's document.
func (s *Service) OpenAPI() []byte { return document }

// Start begins to follow the log.
func (s *Service) Start(ctx context.Context) error {
	for _, c := range []eventstore.SubscriptionConfig{
		{Name: announcing, Category: category, Handle: s.announce},
		{Name: listing, Category: category, Handle: s.keepList},
	} {
		subscription, err := s.cfg.Log.Subscribe(c) //nolint:contextcheck // it lives until Stop
		if err != nil {
			return errors.Join(err, s.Stop(ctx))
		}
		s.subscriptions = append(s.subscriptions, subscription)
	}
	if s.cfg.EraseAfter > 0 {
		var life context.Context
		life, s.end = context.WithCancel(context.WithoutCancel(ctx))
		s.background.Go(func() { s.sweep(life) })
	}
	return nil
}

// Stop ends that.
func (s *Service) Stop(ctx context.Context) error {
	if s.end != nil {
		s.end()
	}
	var errs []error
	for _, subscription := range s.subscriptions {
		errs = append(errs, subscription.Close(ctx))
	}
	s.background.Wait()
	return errors.Join(errs...)
}

// Ready reports a log that does not answer.
func (s *Service) Ready(ctx context.Context) error {
	_, err := s.cfg.Log.Head(ctx)
	return err
}
