package gamesession

import (
	"cmp"
	_ "embed"
	"errors"
	"time"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/host"
)

//go:embed openapi.yaml
var document []byte

// Config describes a Service.
type Config struct {
	// Factory has Store. Required.
	Factory *state.Factory
	// Bus tells players and others, and hears of sessions that end. Required.
	Bus *bus.Bus

	// ConfirmWithin is how long a player has for confirming; the saga's definition has the same. Default: 30 s.
	ConfirmWithin time.Duration
	// IdleTTL is how long a game session is kept in which nothing changes. Default: 24 h.
	IdleTTL time.Duration
	// PlayerTTL is how long it is remembered where a session has asked for a seat. A session that lives longer keeps a seat when it
	// ends, until its game session goes. Default: 90 days, as long as one lives.
	PlayerTTL time.Duration
	// Timeout bounds the work of one request. Default: 10 s.
	Timeout time.Duration
	// MaxBodyBytes bounds a request. Default: 64 KiB.
	MaxBodyBytes int64
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// A Service is the game-session service of a host.
type Service struct {
	host.Base
	cfg Config
}

// New makes the service and subscribes it.
func New(cfg Config) (*Service, error) {
	if cfg.Factory == nil || cfg.Bus == nil {
		return nil, errors.New("game-session: the service needs a factory and a bus")
	}
	cfg.ConfirmWithin = cmp.Or(cfg.ConfirmWithin, 30*time.Second)
	cfg.IdleTTL = cmp.Or(cfg.IdleTTL, 24*time.Hour)
	cfg.PlayerTTL = cmp.Or(cfg.PlayerTTL, 90*24*time.Hour)
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.MaxBodyBytes = cmp.Or(cfg.MaxBodyBytes, 64<<10)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Service{cfg: cfg}
	o := bus.SubscriptionOptions{Service: s.Name()}
	return s, errors.Join(
		bus.Handle(cfg.Bus, events.TopicSessionInvalidated, "free-seats", s.invalidated, o),
		bus.Handle(cfg.Bus, events.TopicSessionDisconnected, "free-seats", s.disconnected, o),
	)
}

// Name is "game-session".
func (s *Service) Name() string { return "game-session" }

// OpenAPI is the service's document.
func (s *Service) OpenAPI() []byte { return document }
