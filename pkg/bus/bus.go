package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// A Bus publishes events and hands them to handlers, over one driver. It is safe for concurrent use.
type Bus struct {
	driver    Driver
	cfg       Config
	log       *slog.Logger
	telemetry *telemetry
	router    *message.Router
	workers   *workers

	routing     context.Context //nolint:containedctx // the router's life: it ends after the last handler
	stopRouting context.CancelFunc
	routed      chan struct{} // closed when Router.Run has returned, with routeErr set
	routeErr    error

	running chan struct{} // closed when Run has declared, or tried to declare, every static handler's queue
	ending  chan struct{} // closed by the first Close
	closed  chan struct{} // closed when that Close is through, with closeErr set

	mu       sync.Mutex
	started  bool
	handlers map[[2]string]struct{} // topic and name of the static handlers
	queues   map[string]struct{}    // that they read
	static   map[*source]struct{}   // one for each of them
	sources  map[*source]struct{}   // all that live, dynamic and plain Watermill ones included
	closeErr error
}

// New makes a bus over a driver, which remains its maker's: close the bus first, then the driver. Several buses may
// share a driver.
func New(d Driver, cfg Config) (*Bus, error) {
	if d == nil {
		return nil, fmt.Errorf("%w: a bus needs a driver", ErrInvalid)
	}
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	t, err := newTelemetry(cfg, d.Backend())
	if err != nil {
		return nil, fmt.Errorf("cannot make the bus's metrics: %w", err)
	}
	quiet := map[slog.Level]slog.Level{slog.LevelInfo: slog.LevelDebug}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: cfg.CloseTimeout},
		watermill.NewSlogLoggerWithLevelMapping(cfg.Logger, quiet))
	if err != nil {
		return nil, fmt.Errorf("cannot make the router: %w", err)
	}
	b := &Bus{
		driver:    d,
		cfg:       cfg,
		log:       cfg.Logger,
		telemetry: t,
		router:    router,
		workers:   newWorkers(),
		routed:    make(chan struct{}),
		running:   make(chan struct{}),
		ending:    make(chan struct{}),
		closed:    make(chan struct{}),
		handlers:  make(map[[2]string]struct{}),
		queues:    make(map[string]struct{}),
		static:    make(map[*source]struct{}),
		sources:   make(map[*source]struct{}),
	}
	b.routing, b.stopRouting = context.WithCancel(context.Background())
	router.AddMiddleware(b.plain)
	router.AddConsumerHandler(keepAlive, "", &idle{ended: make(chan struct{})}, func(*message.Message) error { return nil })
	return b, nil
}

// Router is the bus's Watermill router. Plain handlers may be added to it, with the bus's Publisher and Subscriber or
// others; on a bus that runs already, RunHandlers starts them. Middleware added to it comes inside the bus's own, and
// is for these plain handlers only: those of Handle and Subscribe do not pass through the router. Run and Close are the
// bus's to call.
func (b *Bus) Router() *message.Router { return b.router }

// Ready reports whether the broker can be published to now (else ErrUnavailable) and every static handler's queue is being read
// (else ErrNotReading: what is published may find no queue, and be nowhere).
func (b *Bus) Ready(ctx context.Context) error {
	if b.closing() {
		return ErrClosed
	}
	if err := b.driver.Ready(ctx); err != nil {
		return err
	}
	var waiting []string
	b.mu.Lock()
	for s := range b.static {
		select {
		case <-s.declared:
		default:
			waiting = append(waiting, s.queue.Name)
		}
	}
	b.mu.Unlock()
	if len(waiting) > 0 {
		slices.Sort(waiting)
		return fmt.Errorf("%w: %w: %s", ErrUnavailable, ErrNotReading, strings.Join(waiting, ", "))
	}
	return nil
}

// AwaitReady returns nil once Ready has, and else when ctx has ended or the bus is closed. It is for who publishes what was kept by an earlier process, or in a
// log: on a new broker the queues of the handlers beside it may not be there yet.
func (b *Bus) AwaitReady(ctx context.Context) error {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, firstPause) {
		asking, cancel := context.WithTimeout(ctx, firstAttempt)
		err := b.Ready(asking)
		cancel()
		if err == nil || errors.Is(err, ErrClosed) {
			return err
		}
		if !wait(ctx, pause) {
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// Topics lists what is subscribed to on the broker, and here, sorted by name.
func (b *Bus) Topics(ctx context.Context) ([]TopicInfo, error) {
	queues, err := b.driver.Queues(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list the queues: %w", err)
	}
	type key struct{ name, exchange string }
	topics := make(map[key]*TopicInfo)
	at := func(name, exchange string) *TopicInfo {
		k := key{name, cmp.Or(exchange, b.cfg.Exchange)}
		if topics[k] == nil {
			topics[k] = &TopicInfo{Name: k.name, Exchange: k.exchange}
		}
		return topics[k]
	}
	for _, q := range queues {
		if q.Topic == "" {
			continue
		}
		t := at(q.Topic, q.Exchange)
		t.MessageCount += q.Messages
		t.ConsumerCount += q.Consumers
	}
	b.mu.Lock()
	for s := range b.sources {
		at(s.topic, "")
	}
	b.mu.Unlock()
	list := make([]TopicInfo, 0, len(topics))
	for _, t := range topics {
		list = append(list, *t)
	}
	slices.SortFunc(list, func(x, y TopicInfo) int {
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Exchange, y.Exchange))
	})
	return list, nil
}

// TopicInfo is a topic, or a pattern, as listings show it.
type TopicInfo struct {
	Name          string
	Exchange      string
	MessageCount  int64 // ready in all its queues: neither what is in work nor what waits for a retry
	ConsumerCount int64 // of all its queues, on all nodes
}

func (b *Bus) remember(s *source) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing() {
		return ErrClosed
	}
	b.sources[s] = struct{}{}
	return nil
}

func (b *Bus) forget(s *source) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sources, s)
}

// closing reports whether Close was called.
func (b *Bus) closing() bool { return isDone(b.ending) }

// isClosed reports whether Close is through: until then handlers may publish.
func (b *Bus) isClosed() bool { return isDone(b.closed) }

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (c Config) check() error {
	var failures []error
	for _, n := range [...]struct{ what, name string }{
		{"app-id", c.AppID}, {"exchange", c.Exchange}, {"dead-letter exchange", c.DeadLetterExchange},
	} {
		failures = append(failures, checkName(n.what, n.name))
	}
	if c.PrefetchCount < 0 || c.RetryDelay < 0 || c.PublishTimeout < 0 || c.CloseTimeout < 0 || c.MaxBodyBytes < 0 {
		failures = append(failures, fmt.Errorf("%w: prefetch count, retry delay, timeouts and body limit must not be negative", ErrInvalid))
	}
	return errors.Join(failures...)
}
