package messaging

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/egress"
	"github.com/bannou-mesh/bannou/services/host"
	"github.com/bannou-mesh/bannou/services/jsonbody"
	"github.com/bannou-mesh/bannou/services/messaging/messagingapi"
	"github.com/bannou-mesh/bannou/services/relay"
)

// SubscriptionStore is the store that durable subscriptions are kept in. It is internal: the state service neither lists
// nor opens it.
const SubscriptionStore = "messaging-subscriptions"

//go:embed openapi.yaml
var document []byte

// Config describes a Service.
type Config struct {
	// Bus carries the events. Required.
	Bus *bus.Bus
	// Policy says which callbacks are allowed. Required.
	Policy *egress.Policy
	// Factory has SubscriptionStore. Default: durable subscriptions are refused as unsupported.
	Factory *state.Factory

	// Outbox keeps events while the broker is away. Default: none, they are refused.
	Outbox state.Outbox
	// Outboxes are others of the node, by the names that operators see. What was set aside in them is shown beside that of Outbox. Default: none.
	Outboxes map[string]*relay.Relay
	// OutboxAfter is how long a publish may take before the event is kept instead. Default: 2 s.
	OutboxAfter time.Duration
	// MeterProvider receives the metrics bannou.messaging.outbox.*. Default: none.
	MeterProvider metric.MeterProvider

	// MayPublish is asked, with the request's context, for each topic and routing key that a request names; its error is the answer.
	// Default: everyone may publish everything.
	MayPublish func(ctx context.Context, topic string) error
	// MaySubscribe is asked in the same way for the pattern of topics that a subscription, a tap or a stream is to hear. Default: everyone may
	// hear everything.
	MaySubscribe func(ctx context.Context, pattern string) error

	// AppID is named in SubscriptionCreatedEvent and MessagePublishedEvent. Default: "bannou".
	AppID string
	// PublishTimeout bounds a publish, the broker's confirmation included. Default: 10 s.
	PublishTimeout time.Duration
	// SubscribeTimeout bounds creating and removing a subscription. Default: 10 s.
	SubscribeTimeout time.Duration
	// LettersTimeout bounds listing and showing dead letters, the wait for the broker or for another reader included. Default: 30 s.
	LettersTimeout time.Duration
	// CallbackTimeout bounds one call of a callback. Default: 30 s.
	CallbackTimeout time.Duration
	// ReconcileInterval is how often the store is asked for durable subscriptions that were made or removed through other
	// instances. A removal is heard of at once where the bus tells of it. Default: 15 s.
	ReconcileInterval time.Duration
	// TailHeartbeat is how often a stream without events says that it lives. Default: 15 s.
	TailHeartbeat time.Duration
	// MaxBodyBytes bounds a request. Default: 4 MiB.
	MaxBodyBytes int64
	// AnnouncePublished publishes a MessagePublishedEvent for each event published here. Default: no.
	AnnouncePublished bool
	// Logger hears of callbacks that fail and subscriptions that end. Default: nobody.
	Logger *slog.Logger
}

// A Service is the messaging service of a host.
type Service struct {
	host.Base
	cfg    Config
	client *http.Client
	outbox *outbox // nil: none

	mu            sync.Mutex
	subscriptions map[string]*subscription
	refused       map[string]time.Time // ids of subscriptions that were answered with an error, and that the store may have
	resumeErr     error                // why durable subscriptions are not all back yet
	stopped       bool

	life      context.Context //nolint:containedctx // of what the service does in the background, ended by Stop
	end       context.CancelFunc
	work      sync.WaitGroup // what the service does in the background
	wake      chan struct{}  // asks for a reconciliation now
	drainOnce sync.Once
	draining  chan struct{} // closed when streams have to end
}

var (
	_ host.Drainer                       = (*Service)(nil)
	_ messagingapi.StrictServerInterface = (*Service)(nil)
)

// New makes the service. It neither publishes nor subscribes before Start.
func New(cfg Config) (*Service, error) {
	if cfg.Bus == nil || cfg.Policy == nil {
		return nil, errors.New("messaging: the service needs a bus and an egress policy")
	}
	if cfg.Factory != nil && !cfg.Factory.Has(SubscriptionStore) {
		return nil, errors.New("messaging: the factory has no store " + SubscriptionStore)
	}
	cfg.AppID = cmp.Or(cfg.AppID, "bannou")
	cfg.PublishTimeout = cmp.Or(cfg.PublishTimeout, 10*time.Second)
	cfg.SubscribeTimeout = cmp.Or(cfg.SubscribeTimeout, 10*time.Second)
	cfg.LettersTimeout = cmp.Or(cfg.LettersTimeout, 30*time.Second)
	cfg.CallbackTimeout = cmp.Or(cfg.CallbackTimeout, 30*time.Second)
	cfg.ReconcileInterval = cmp.Or(cfg.ReconcileInterval, 15*time.Second)
	cfg.OutboxAfter = cmp.Or(cfg.OutboxAfter, 2*time.Second)
	cfg.TailHeartbeat = cmp.Or(cfg.TailHeartbeat, 15*time.Second)
	cfg.MaxBodyBytes = cmp.Or(cfg.MaxBodyBytes, 4<<20)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		cfg:           cfg,
		client:        cfg.Policy.Client(),
		subscriptions: map[string]*subscription{},
		refused:       map[string]time.Time{},
		wake:          make(chan struct{}, 1),
		draining:      make(chan struct{}),
	}
	if cfg.Outbox != nil {
		var err error
		if s.outbox, err = newOutbox(&cfg, s); err != nil {
			return nil, err
		}
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// Name is "messaging".
func (s *Service) Name() string { return "messaging" }

// OpenAPI is the service's document.
func (s *Service) OpenAPI() []byte { return document }

// Mount registers /messaging/*.
func (s *Service) Mount(mux *http.ServeMux) error {
	strict := messagingapi.NewStrictHandlerWithOptions(s, nil, messagingapi.StrictHTTPServerOptions{
		RequestErrorHandlerFunc:  jsonbody.WriteDecodeError,
		ResponseErrorHandlerFunc: jsonbody.WriteError,
	})
	messagingapi.HandlerWithOptions(strict, messagingapi.StdHTTPServerOptions{
		BaseRouter:       mux,
		Middlewares:      []messagingapi.MiddlewareFunc{jsonbody.Middleware(jsonbody.Limits{MaxBytes: s.cfg.MaxBodyBytes})},
		ErrorHandlerFunc: jsonbody.WriteDecodeError,
	})
	return nil
}

// Start brings durable subscriptions back, and begins to follow what other instances do with them. What cannot be brought
// back at once, because store or broker is away, is tried again in the background.
func (s *Service) Start(ctx context.Context) error {
	if s.outbox != nil {
		s.startOutbox(ctx)
	}
	if s.cfg.Factory == nil {
		return nil
	}
	s.setResumeErr(errors.New("durable subscriptions have not been read yet"))
	first, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err := s.reconcile(first)
	s.setResumeErr(err)
	s.work.Go(func() { s.keepReconciling(err) })
	s.work.Go(s.hearRemovals)
	return nil
}

// startTimeout is how long Start waits for what is away.
const startTimeout = 2 * time.Second

// Ready says which part of the service waits for store or broker. That the broker is away is not a reason to be unready
// while events can be kept.
func (s *Service) Ready(context.Context) error {
	s.mu.Lock()
	resumeErr := s.resumeErr
	s.mu.Unlock()
	if s.outbox != nil {
		return s.outbox.ready(resumeErr)
	}
	return resumeErr
}

func (s *Service) setResumeErr(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resumeErr = err
}

// Drain ends the streams, which would never end by themselves.
func (s *Service) Drain(context.Context) { s.drainOnce.Do(func() { close(s.draining) }) }

// Stop ends all subscriptions here. Events in work are finished or go back to their queue; the queues of durable
// subscriptions, and what arrives in them, stay.
func (s *Service) Stop(ctx context.Context) error {
	s.Drain(ctx)
	s.mu.Lock()
	s.stopped = true // before the end of what takes subscriptions up again: one that comes up because of it is late
	open := make([]*subscription, 0, len(s.subscriptions))
	for _, sub := range s.subscriptions {
		open = append(open, sub)
	}
	clear(s.subscriptions)
	s.mu.Unlock()
	s.end()

	var closing sync.WaitGroup
	errs := make([]error, len(open))
	for i, sub := range open {
		closing.Go(func() { errs[i] = sub.queue.Close(ctx) })
	}
	closing.Wait()
	s.work.Wait()
	s.client.CloseIdleConnections()
	return errors.Join(errs...)
}
