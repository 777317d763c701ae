package events

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore/projection"
	"github.com/bannou-mesh/bannou/services/guard"
	"github.com/bannou-mesh/bannou/services/host"
)

//go:embed openapi.yaml
var document []byte

// Config describes a Service.
type Config struct {
	// Log is the log of events. Required.
	Log *eventstore.Store

	// Aggregates show the states of streams as they were, by category. Default: none, and of streams their events are shown.
	Aggregates map[string]Aggregate

	// Hints tell other nodes of appends. Default: nobody is told, and those who follow the log on other nodes look by themselves.
	Hints *Hints

	// Projections are those of the log that the program has defined. Its owner closes it. Default: the service lists and commands what others
	// have defined.
	Projections *projection.Set

	// Access says who may use which categories. Default: everyone, all.
	Access *guard.Access

	// Internal are beginnings, such as "saga.", of the categories that services keep, and nobody changes by this one. Default: none.
	Internal []string

	// Logger hears of readers that could not be served on. Default: none.
	Logger *slog.Logger

	// MeterProvider receives the metric bannou.events.refusals. Default: none.
	MeterProvider metric.MeterProvider

	// Timeout bounds the work on the log of one request. Default: 10 s.
	Timeout time.Duration
	// MaxBodyBytes bounds a request. Default: 8 MiB.
	MaxBodyBytes int64

	// MaxFollowers is how many may follow the log through this node at once. Default: 1000.
	MaxFollowers int
	// Heartbeat is how often a stream without events says that it lives. Default: 15 s.
	Heartbeat time.Duration
	// WriteTimeout is how long a reader of a stream may take for one event before it counts as gone. Default: 30 s.
	WriteTimeout time.Duration
}

// A Service is the events service of a host.
type Service struct {
	host.Base
	cfg       Config
	refusals  refusals
	own       *projection.Set // where Config has none: opened by Start, closed by Stop
	followers chan struct{}   // one for each

	draining  chan struct{} // closed when streams have to end
	drainOnce sync.Once
}

// New makes the service. It asks the log for nothing yet.
func New(cfg Config) (*Service, error) {
	if cfg.Log == nil {
		return nil, errors.New("events: the service needs a log")
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 10*time.Second)
	cfg.MaxBodyBytes = cmp.Or(cfg.MaxBodyBytes, 8<<20)
	cfg.MaxFollowers = cmp.Or(cfg.MaxFollowers, 1000)
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, 15*time.Second)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, 30*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	refusals, err := newRefusals(cfg.MeterProvider)
	if err != nil {
		return nil, err
	}
	return &Service{cfg: cfg, refusals: refusals, followers: make(chan struct{}, cfg.MaxFollowers), draining: make(chan struct{})}, nil
}

// Name is "events".
func (s *Service) Name() string { return "events" }

// OpenAPI is the service's document.
func (s *Service) OpenAPI() []byte { return document }

// Start begins to tell other nodes of appends, and to hear of theirs.
func (s *Service) Start(ctx context.Context) (err error) {
	if s.cfg.Projections == nil {
		if s.own, err = projection.Open(ctx, s.cfg.Log, projection.Config{Logger: s.cfg.Logger}); err != nil {
			return err
		}
	}
	s.cfg.Hints.start(s.cfg.Log) //nolint:contextcheck // they go on until Stop
	return nil
}

// Drain ends the streams of those who follow the log: they do not end by themselves.
func (s *Service) Drain(context.Context) { s.drainOnce.Do(func() { close(s.draining) }) }

// Stop ends what Start began.
func (s *Service) Stop(ctx context.Context) error {
	s.cfg.Hints.stop()
	if s.own == nil {
		return nil
	}
	return s.own.Close(ctx)
}

// Ready reports a database that does not answer.
func (s *Service) Ready(ctx context.Context) error {
	_, err := s.cfg.Log.Head(ctx)
	return err
}
