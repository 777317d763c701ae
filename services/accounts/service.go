package accounts

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
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

	// Lease is how long what a process does that follows the log is left alone when it says nothing. Default: that of the log.
	Lease time.Duration
	// Timeout bounds the work of one request. Default: 10 s.
	Timeout time.Duration
	// MaxBodyBytes bounds a request. Default: 64 KiB.
	MaxBodyBytes int64
}

// A Service is the accounts service of a host.
type Service struct {
	host.Base
	cfg      Config
	types    *eventstore.Types
	accounts *eventstore.Aggregate[account]

	subscriptions []*eventstore.Subscription
}

// New makes the service. Nothing is read before Start.
func New(cfg Config) (*Service, error) {
	if cfg.Log == nil || cfg.Factory == nil || cfg.Bus == nil {
		return nil, errors.New("accounts: the service needs a log, a factory and a bus")
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.MaxBodyBytes = cmp.Or(cfg.MaxBodyBytes, 64<<10)
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
		{Name: announcing, Category: category, Handle: s.announce, Lease: s.cfg.Lease},
		{Name: listing, Category: category, Handle: s.keepList, Lease: s.cfg.Lease},
	} {
		subscription, err := s.cfg.Log.Subscribe(c) //nolint:contextcheck // it lives until Stop
		if err != nil {
			return errors.Join(err, s.Stop(ctx))
		}
		s.subscriptions = append(s.subscriptions, subscription)
	}
	return nil
}

// Stop ends that.
func (s *Service) Stop(ctx context.Context) error {
	var errs []error
	for _, subscription := range s.subscriptions {
		errs = append(errs, subscription.Close(ctx))
	}
	return errors.Join(errs...)
}

// Ready reports a log that does not answer.
func (s *Service) Ready(ctx context.Context) error {
	_, err := s.cfg.Log.Head(ctx)
	return err
}
