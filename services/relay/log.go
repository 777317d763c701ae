package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/host"
)

// LogConfig describes a Log.
type LogConfig struct {
	// Store has the events, and Bus is where they go. Required.
	Store *eventstore.Store
	Bus   *bus.Bus

	// Name is that of the relay's subscription to the log, where it goes on from in whatever process. Relays of one log that
	// publish different events have different names. Required.
	Name string
	// Category is whose events are published. Required.
	Category string
	// From is the position after which a new relay begins. Default: 0, the beginning.
	From int64

	// Messages says what is published of an event: none where it is nobody else's business. It must say the same each time, for an event
	// may come again. Its error, but for those of what is away, parks the event's stream. It is called by one goroutine. Required.
	Messages func(ctx context.Context, e eventstore.Recorded) ([]Message, error)

	// Lease is how long a leader that says nothing is waited for. Default: 15 s.
	Lease time.Duration
	// InFlight is how many events are under way at a time, at most one of each stream. Default: 256.
	InFlight int
	// ConfirmTimeout is how long the broker may take to confirm an event before that is sent again. Default: 5 s.
	ConfirmTimeout time.Duration

	// MeterProvider receives the metrics bannou.events.relay.*. Default: none.
	MeterProvider metric.MeterProvider
	// Logger hears of the broker's coming and going. Default: nobody.
	Logger *slog.Logger
}

// A Log publishes the events of a category of an event store: the log is the outbox. Of the relays of one name, in all processes, one is
// the leader at a time, by a lease of the log's database; what it has published it enters there.
//
// Every event arrives at least once, with the same id each time. The first arrivals of a stream's events are in the stream's order,
// whatever is killed, stopped or cut off meanwhile: an event is published when the broker has confirmed the one before it. Their partition
// key is the stream's id. A receiver with an inbox handles each once, in order.
//
// A leader that was stopped and comes back publishes nothing more, and enters nothing; at most what it had under way may arrive then, which is
// what the next leader has published again. An event that cannot be published parks its stream: see eventstore.Store.Parked and Unpark, by the
// relay's name. A broker that is away is waited for.
//
// It is a service of a host.
type Log struct {
	host.Base
	cfg     LogConfig
	metrics *logMetrics
	sub     *eventstore.Subscription // while it is started

	end     context.CancelFunc
	watched sync.WaitGroup

	mu      sync.Mutex
	figures LogFigures
	waits   bool  // for the bus, before the first event
	away    error // why the last publish failed; nil: it did not
	trouble error // why the figures could not be read
}

var (
	_ host.Service  = (*Log)(nil)
	_ host.Measured = (*Log)(nil)
)

// NewLog makes a relay of a log. It does nothing before Start.
func NewLog(cfg LogConfig) (*Log, error) {
	if cfg.Store == nil || cfg.Bus == nil || cfg.Name == "" || cfg.Category == "" || cfg.Messages == nil {
		return nil, errors.New("relay: a log's relay needs a store, a bus, a name, a category, and to know what is published")
	}
	if cfg.ConfirmTimeout == 0 {
		cfg.ConfirmTimeout = sendTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Log{cfg: cfg, trouble: errUnread, waits: true}
	var err error
	l.metrics, err = newLogMetrics(&l.cfg, l)
	return l, err
}

// Name is "relay-" and the relay's name.
func (l *Log) Name() string { return "relay-" + l.cfg.Name }

// Start begins to publish, or to wait for the lead.
func (l *Log) Start(context.Context) (err error) { //nolint:contextcheck // its life is not the call's
	l.sub, err = l.cfg.Store.Subscribe(eventstore.SubscriptionConfig{ //nolint:contextcheck // as above
		Name: l.cfg.Name, Category: l.cfg.Category, From: l.cfg.From, Begin: l.begin, Lease: l.cfg.Lease, InFlight: l.cfg.InFlight,
		Await: l.await,
	})
	if err != nil {
		return fmt.Errorf("relay %q: %w", l.cfg.Name, err)
	}
	ctx, end := context.WithCancel(context.Background())
	l.end = end
	l.watched.Go(func() { l.watch(ctx) })
	return nil
}

// Stop waits for what is under way, until ctx ends, enters it, and leaves the rest to the next leader.
func (l *Log) Stop(ctx context.Context) error {
	l.end()
	l.watched.Wait()
	return errors.Join(l.sub.Close(ctx), l.metrics.close())
}

// await returns when the bus has been ready once: on a new broker, what is published before the handlers of this bus have queues would reach nobody.
func (l *Log) await(ctx context.Context) error {
	err := l.cfg.Bus.AwaitReady(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits = err != nil
	return err
}

// begin hands what is published of an event to the broker's connection.
func (l *Log) begin(ctx context.Context, e eventstore.Recorded) (end func() error) {
	messages, err := l.cfg.Messages(ctx, e)
	if err != nil {
		return ended(poison(err))
	}
	if len(messages) == 0 {
		l.metrics.skipped.Add(ctx, 1, l.metrics.of)
		return ended(nil)
	}
	ctx, cancel := context.WithTimeout(traced(ctx, &e), l.cfg.ConfirmTimeout)
	var begun []*bus.Publication
	for n := range messages {
		var p *bus.Publication
		if p, err = l.publish(ctx, &e, &messages[n], n); err != nil {
			break
		}
		begun = append(begun, p)
	}
	return func() error {
		defer cancel()
		for _, p := range begun {
			err = errors.Join(err, p.Wait())
		}
		return l.outcome(ctx, err, len(begun))
	}
}

func ended(err error) func() error { return func() error { return err } }

// outcome tells the subscription whether to try an event again.
func (l *Log) outcome(ctx context.Context, err error, sent int) error {
	switch {
	case err == nil:
		l.metrics.sent.Add(ctx, int64(sent), l.metrics.of)
		l.isAway(nil)
		return nil
	case errors.Is(err, bus.ErrInvalid):
		return poison(err)
	case errors.Is(err, bus.ErrUnavailable), errors.Is(err, bus.ErrNotConfirmed), errors.Is(err, bus.ErrClosed), ctx.Err() != nil:
		l.isAway(err)
		return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
	default:
		return err
	}
}

// poison marks an error that another attempt does not mend.
func poison(err error) error {
	if errors.Is(err, state.ErrUnavailable) || errors.Is(err, state.ErrOutcomeUnknown) {
		return err
	}
	return fmt.Errorf("%w: %w", eventstore.ErrPoison, err)
}

// isAway remembers whether the broker is.
func (l *Log) isAway(err error) {
	l.mu.Lock()
	before := l.away
	l.away = err
	l.mu.Unlock()
	switch {
	case err != nil && before == nil:
		l.cfg.Logger.Warn("the broker is away: events wait in their log", "relay", l.cfg.Name, "error", err)
	case err == nil && before != nil:
		l.cfg.Logger.Info("the broker is back: the log's events are published", "relay", l.cfg.Name)
	}
}
