package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
	"github.com/bannou-mesh/bannou/services/host"
)

// LogFigures tell how far the relays of one name are, whichever leads.
type LogFigures struct {
	// Depth is how many positions lie before the relay, up to the end of the log. There may be events of other categories among them; it is
	// 0 when none of the relay's own waits.
	Depth  int64
	Oldest time.Time // when the event was recorded that is next; zero: none waits
	Parked int       // streams that are set aside
	Leader bool      // some process leads
}

// watch reads the figures, often while something waits.
func (l *Log) watch(ctx context.Context) {
	for ctx.Err() == nil {
		figures, err := l.look(ctx)
		l.mu.Lock()
		if l.trouble = err; err == nil {
			l.figures = figures
		}
		l.mu.Unlock()
		pause := idleTick / 3
		if err != nil || figures.Depth > 0 || figures.Parked > 0 {
			pause = busyTick
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// look reads the figures once.
func (l *Log) look(ctx context.Context) (f LogFigures, err error) {
	ctx, cancel := context.WithTimeout(ctx, storing)
	defer cancel()
	marks, err := l.cfg.Store.Marks(ctx, l.cfg.Name)
	if err != nil {
		return f, err
	}
	position := l.cfg.From
	for _, m := range marks {
		position, f.Leader = m.Position, m.Consumer != ""
	}
	parked, err := l.cfg.Store.Parked(ctx, l.cfg.Name)
	if err != nil {
		return f, err
	}
	f.Parked = len(parked)
	head, err := l.cfg.Store.Head(ctx)
	if err != nil {
		return f, err
	}
	for next, err := range l.cfg.Store.ReadCategory(ctx, l.cfg.Category, eventstore.ReadOptions{From: position + 1, Limit: 1}) {
		if err != nil {
			return f, err
		}
		f.Depth, f.Oldest = max(head-position, 1), next.RecordedAt
	}
	return f, nil
}

// Progress is what was known last.
func (l *Log) Progress() LogFigures {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.figures
}

// Age is how long the event has waited that is next.
func (l *Log) Age() time.Duration {
	oldest := l.Progress().Oldest
	if oldest.IsZero() {
		return 0
	}
	return max(time.Since(oldest), 0)
}

// Ready shows that events wait because the broker or the database is away, and that streams are parked. None of it makes the node
// unready: the events are in their log.
func (l *Log) Ready(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.trouble != nil:
		return host.Degraded(fmt.Errorf("the log of %s cannot be read: %w", l.cfg.Category, l.trouble))
	case l.waits:
		return host.Degraded(fmt.Errorf("events of %s wait in their log until the bus is ready", l.cfg.Category))
	case l.away != nil:
		return host.Degraded(fmt.Errorf("the broker is away: events of %s wait in their log: %w", l.cfg.Category, l.away))
	case l.figures.Parked > 0:
		return host.Degraded(fmt.Errorf("%d streams of %s are parked: an event of each cannot be published", l.figures.Parked, l.cfg.Category))
	default:
		return nil
	}
}

// Figures are how many positions lie before the relay, how long the next event has waited, in seconds, and how many streams are parked.
func (l *Log) Figures() map[string]float64 {
	f := l.Progress()
	return map[string]float64{"relayDepth": float64(f.Depth), "relayAgeSeconds": l.Age().Seconds(), "relayParked": float64(f.Parked)}
}

// logMetrics are the instruments of one relay, with its name as the label "relay".
type logMetrics struct {
	of            metric.MeasurementOption
	sent, skipped metric.Int64Counter
	registration  metric.Registration
}

func newLogMetrics(cfg *LogConfig, l *Log) (*logMetrics, error) {
	provider := cfg.MeterProvider
	if provider == nil {
		provider = noop.NewMeterProvider()
	}
	meter := provider.Meter("github.com/bannou-mesh/bannou/services/relay")
	m := &logMetrics{of: metric.WithAttributes(attribute.String("relay", cfg.Name))}
	const prefix = "bannou.events.relay."
	var errs [6]error
	m.sent, errs[0] = meter.Int64Counter(prefix+"sent", metric.WithUnit("{event}"), metric.WithDescription("events of the log that the broker has confirmed"))
	m.skipped, errs[1] = meter.Int64Counter(prefix+"skipped", metric.WithUnit("{event}"), metric.WithDescription("events of the log of which nothing is published"))
	depth, err := meter.Int64ObservableGauge(prefix+"depth", metric.WithUnit("{event}"), metric.WithDescription("positions of the log before the relay"))
	errs[2] = err
	age, err := meter.Float64ObservableGauge(prefix+"age", metric.WithUnit("s"), metric.WithDescription("how long the event has waited that is published next"))
	errs[3] = err
	parked, err := meter.Int64ObservableGauge(prefix+"parked", metric.WithUnit("{stream}"), metric.WithDescription("streams with an event that cannot be published"))
	errs[4] = err
	m.registration, errs[5] = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		f := l.Progress()
		o.ObserveInt64(depth, f.Depth, m.of)
		o.ObserveFloat64(age, l.Age().Seconds(), m.of)
		o.ObserveInt64(parked, int64(f.Parked), m.of)
		return nil
	}, depth, age, parked)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("relay %q: metrics: %w", cfg.Name, err)
	}
	return m, nil
}

func (m *logMetrics) close() error { return m.registration.Unregister() }
