package auth

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/host"
)

//go:embed openapi.yaml
var document []byte

// Config describes a Service.
type Config struct {
	// Factory has the stores SessionStore, CredentialStore and KeyStore. Required.
	Factory *state.Factory
	// Bus hears of sessions, and tells of accounts. Required.
	Bus *bus.Bus
	// Accounts are asked for accounts. Required.
	Accounts Accounts

	// Issuer is the iss of access tokens. Default: "bannou".
	Issuer string
	// AccessTTL is how long an access token lives. Default: 15 min.
	AccessTTL time.Duration
	// IdleTTL is how long a session lives that is not refreshed. Default: 14 days.
	IdleTTL time.Duration
	// SessionTTL is how long a session lives at most. Default: 90 days.
	SessionTTL time.Duration
	// RefreshGrace is how long a refresh token that was used may be used again, where its answer was lost. Default: 30 s. Negative:
	// not at all.
	RefreshGrace time.Duration
	// KeyRotation is how long a key signs tokens. Default: 30 days.
	KeyRotation time.Duration
	// ResetTTL is how long the token of a letter is worth something. Default: 30 min.
	ResetTTL time.Duration
	// MaxSessions is how many an account has at most; a further one ends that which was used least lately. Default: 20.
	MaxSessions int
	// Hashing says what passwords cost.
	Hashing Hashing
	// Throttle says how often may be tried.
	Throttle Throttle
	// Proxies are networks whose X-Forwarded-For is believed. Default: none.
	Proxies []netip.Prefix

	// NodesTell has it believed who calls where the gateway says so, by Bannou-Session-Id and Bannou-Account-Id. Set it where nobody but
	// nodes can send these. Default: an access token alone tells.
	NodesTell bool

	// Timeout bounds the work of one request. Default: 10 s.
	Timeout time.Duration
	// MaxBodyBytes bounds a request. Default: 64 KiB.
	MaxBodyBytes int64
	// TellEvery is how often what could not be told to the bus is tried again. Default: 1 s.
	TellEvery time.Duration
	// TellLeftEvery is how often is looked for what processes that died have not told. Default: 15 s.
	TellLeftEvery time.Duration

	// Logger hears of refresh tokens that were used twice, and of failures. It is given no token and no password. Default: none.
	Logger *slog.Logger
	// MeterProvider receives the metrics bannou.auth.logins, .hashes and .sessions.revoked. Default: none.
	MeterProvider metric.MeterProvider
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

func (cfg *Config) setDefaults() {
	cfg.Issuer = cmp.Or(cfg.Issuer, "bannou")
	cfg.AccessTTL = cmp.Or(cfg.AccessTTL, 15*time.Minute)
	cfg.IdleTTL = cmp.Or(cfg.IdleTTL, 14*24*time.Hour)
	cfg.SessionTTL = cmp.Or(cfg.SessionTTL, 90*24*time.Hour)
	cfg.RefreshGrace = cmp.Or(cfg.RefreshGrace, 30*time.Second)
	cfg.KeyRotation = cmp.Or(cfg.KeyRotation, 30*24*time.Hour)
	cfg.ResetTTL = cmp.Or(cfg.ResetTTL, 30*time.Minute)
	cfg.MaxSessions = cmp.Or(cfg.MaxSessions, 20)
	cfg.Throttle.Window = cmp.Or(cfg.Throttle.Window, 15*time.Minute)
	cfg.Throttle.PerAccount = cmp.Or(cfg.Throttle.PerAccount, 10)
	cfg.Throttle.PerAddress = cmp.Or(cfg.Throttle.PerAddress, 100)
	cfg.Throttle.Letters = cmp.Or(cfg.Throttle.Letters, 3)
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.MaxBodyBytes = cmp.Or(cfg.MaxBodyBytes, 64<<10)
	cfg.TellEvery = cmp.Or(cfg.TellEvery, time.Second)
	cfg.TellLeftEvery = cmp.Or(cfg.TellLeftEvery, 15*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = noop.NewMeterProvider()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
}

// A Service is the auth service of a host.
type Service struct {
	host.Base
	cfg         Config
	hasher      *hasher
	dummy       string // the hash that no password has
	credentials credentials
	sessions    sessions
	counters    counters
	ring        *ring
	teller      *teller
	letters     chan string // addresses that asked for one
	counts      counts

	end        context.CancelFunc
	background sync.WaitGroup
}

// New makes the service, and subscribes it to what happens to accounts.
func New(cfg Config) (*Service, error) {
	if cfg.Factory == nil || cfg.Bus == nil || cfg.Accounts == nil {
		return nil, errors.New("auth: the service needs a factory, a bus and accounts")
	}
	cfg.setDefaults()
	counts, err := newCounts(cfg.MeterProvider)
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, hasher: newHasher(cfg.Hashing, func(ctx context.Context) { counts.hashes.Add(ctx, 1) }),
		credentials: credentials{cfg.Factory}, sessions: sessions{cfg.Factory, cfg.Now, untold{cfg.Factory, cfg.Now, 2 * cfg.Timeout}},
		counters: counters{cfg.Factory, cfg.Now, cfg.Throttle.Window},
		ring:     &ring{factory: cfg.Factory, now: cfg.Now, rotation: cfg.KeyRotation, tokens: cfg.AccessTTL},
		teller:   newTeller(), letters: make(chan string, maxLetters), counts: counts,
	}
	s.dummy = s.hasher.dummy()
	o := bus.SubscriptionOptions{Service: s.Name()}
	return s, errors.Join(
		bus.Handle(cfg.Bus, events.TopicAccountUpdated, "update-sessions", s.accountUpdated, o),
		bus.Handle(cfg.Bus, events.TopicAccountDeleted, "invalidate-sessions", s.accountDeleted, o),
	)
}

// Name is "auth".
func (s *Service) Name() string { return "auth" }

// OpenAPI is the service's document.
func (s *Service) OpenAPI() []byte { return document }

// Start begins to turn keys, to send letters, and to tell what could not be told before, be it by another process.
func (s *Service) Start(ctx context.Context) error {
	var life context.Context
	life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.background.Go(func() { s.turnKeys(life) })
	s.background.Go(func() { s.writeLetters(life) })
	s.background.Go(func() { s.tellAgain(life) })
	s.background.Go(func() { s.tellLeft(life) })
	return nil
}

// Stop ends that.
func (s *Service) Stop(context.Context) error {
	s.end()
	s.background.Wait()
	return nil
}

// Ready reports keys that could not be read.
func (s *Service) Ready(ctx context.Context) error {
	_, err := s.ring.all(ctx)
	return err
}

// turnKeys keeps this process's copy of the keys new.
func (s *Service) turnKeys(ctx context.Context) {
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		if err := s.ring.load(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "the keys that sign tokens cannot be read; those that are known go on to be used", slog.Any("error", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
