package redisbus

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// droppedTrimmed is why a session's queue missed what its stream no longer has.
const droppedTrimmed = "trimmed before it was read"

// drops counts and logs what is dropped.
type drops struct {
	log     *slog.Logger
	counter metric.Int64Counter
}

func newDrops(cfg Config) drops {
	counter, err := cfg.MeterProvider.Meter("github.com/bannou-mesh/bannou/pkg/bus/redisbus").Int64Counter("bannou.redisbus.dropped",
		metric.WithDescription("Messages dropped, by queue and reason."))
	if err != nil {
		counter = noop.Int64Counter{}
	}
	return drops{log: cfg.Logger, counter: counter}
}

func (d drops) count(ctx context.Context, queue, why string, n int64) {
	if n <= 0 {
		return
	}
	d.counter.Add(ctx, n, metric.WithAttributes(attribute.String("queue", queue), attribute.String("reason", why)))
	d.log.WarnContext(ctx, "messages were dropped", "queue", queue, "reason", why, "count", n)
}
