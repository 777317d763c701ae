package incident

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
)

const (
	maxKeys        = 1000            // incidents that are told apart at a time
	publishTimeout = 5 * time.Second // of one event
	flushTimeout   = 2 * time.Second // of what is left at the end
)

// Config describes a Reporter.
type Config struct {
	// AppID and InstanceID say which node reports. Required.
	AppID, InstanceID string
	// Window is how long the incidents of one key are gathered into one event. Default: a minute.
	Window time.Duration
	// Paths names the service that answers the paths beginning with a word, where that word is not its name.
	Paths map[string]string
	// Logger hears of events that could not be published. Default: nobody.
	Logger *slog.Logger
	// MeterProvider receives the metrics bannou.incidents.*. Default: none.
	MeterProvider metric.MeterProvider
}

// A Publisher is where the events go; a *bus.Bus is one.
type Publisher interface {
	Publish(ctx context.Context, topic string, e bus.Event) (messageID string, err error)
}

// A Reporter gathers incidents and publishes them while Run runs. It is safe for concurrent use.
type Reporter struct {
	cfg             Config
	reported, drops metric.Int64Counter
	wake            chan struct{}

	mu      sync.Mutex
	tallies map[key]*tally
}

type key struct{ service, operation, code string }

// A tally is what happened of one key since it was last published.
type tally struct {
	count       int64 // 0: nothing since
	first, last time.Time
	latest      occurrence
	due         time.Time // it is published no earlier
}

// New makes a reporter.
func New(cfg Config) (*Reporter, error) {
	if cfg.AppID == "" || cfg.InstanceID == "" {
		return nil, errors.New("incident: a reporter needs the names of its node, an app-id and an instance id")
	}
	cfg.Window = cmp.Or(cfg.Window, time.Minute)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = noop.NewMeterProvider()
	}
	r := &Reporter{cfg: cfg, wake: make(chan struct{}, 1), tallies: map[key]*tally{}}
	meter := cfg.MeterProvider.Meter("github.com/bannou-mesh/bannou/services/incident")
	var err, dropErr error
	r.reported, err = meter.Int64Counter("bannou.incidents.reported", metric.WithUnit("{incident}"),
		metric.WithDescription("errors nobody handled and events given up that were published in a service.error"))
	r.drops, dropErr = meter.Int64Counter("bannou.incidents.dropped", metric.WithUnit("{incident}"),
		metric.WithDescription("errors nobody handled and events given up that no service.error tells of, by reason"))
	if err := errors.Join(err, dropErr); err != nil {
		return nil, fmt.Errorf("incident: metrics: %w", err)
	}
	return r, nil
}

func (r *Reporter) wakeUp() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Reporter) dropped(ctx context.Context, n int64, reason string) {
	r.drops.Add(ctx, n, metric.WithAttributes(attribute.String("reason", reason)))
}

// Run publishes until ctx ends; then it publishes at once what is gathered still, which takes two seconds at most.
func (r *Reporter) Run(ctx context.Context, to Publisher) {
	for {
		now := time.Now()
		for _, e := range r.take(now, false) {
			r.publish(ctx, to, e)
		}
		timer := time.NewTimer(r.next(now))
		select {
		case <-r.wake:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			r.flush(context.WithoutCancel(ctx), to)
			return
		}
		timer.Stop()
	}
}

func (r *Reporter) flush(ctx context.Context, to Publisher) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	for _, e := range r.take(time.Now(), true) {
		r.publish(ctx, to, e)
	}
}

// take returns events of what is due, or of all there is, and forgets the keys of which nothing has come for a window.
func (r *Reporter) take(now time.Time, all bool) []*events.ServiceErrorEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	var due []*events.ServiceErrorEvent
	for k, t := range r.tallies {
		switch {
		case !all && now.Before(t.due):
		case t.count == 0:
			delete(r.tallies, k)
		default:
			due = append(due, r.event(k, t))
			t.count, t.due = 0, now.Add(r.cfg.Window)
		}
	}
	return due
}

// next is how long there is nothing to do.
func (r *Reporter) next(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	pause := r.cfg.Window
	for _, t := range r.tallies {
		pause = min(pause, max(t.due.Sub(now), 0))
	}
	return pause
}

func (r *Reporter) event(k key, t *tally) *events.ServiceErrorEvent {
	return &events.ServiceErrorEvent{
		ServiceName: k.service, AppID: r.cfg.AppID, InstanceID: r.cfg.InstanceID, Kind: t.latest.kind, Operation: k.operation,
		Code: k.code, Message: t.latest.message, Occurrences: t.count, FirstSeenAt: t.first.UTC(), LastSeenAt: t.last.UTC(),
		Topic: t.latest.topic, MessageID: t.latest.messageID, CorrelationID: t.latest.correlationID, TraceID: t.latest.traceID,
	}
}

// publish sends one event, and does not try again: what goes on happening is told of in the next one.
func (r *Reporter) publish(ctx context.Context, to Publisher, e *events.ServiceErrorEvent) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if _, err := to.Publish(ctx, events.TopicServiceError, e); err != nil {
		r.dropped(ctx, e.Occurrences, "not-published")
		r.cfg.Logger.WarnContext(ctx, "an incident was not published", "service", e.ServiceName, "operation", e.Operation,
			"code", e.Code, "occurrences", e.Occurrences, "error", err)
		return
	}
	r.reported.Add(ctx, e.Occurrences)
}
