package memorybus

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// expireTimeout is how long an expired message may wait for room in a full queue on the dead-letter exchange.
const expireTimeout = 30 * time.Second

// expire dead-letters a message that has waited too long.
func (d *Driver) expire(q *queue, e *entry) {
	letter := bus.DeadLetter(e.message, bus.Discard{
		Exchange:           d.cfg.Exchange,
		DeadLetterExchange: d.cfg.DeadLetterExchange,
		Queue:              q.name,
		Reason:             bus.DiscardExpired,
		Attempt:            e.attempt,
		At:                 time.Now(),
	})
	ctx, cancel := context.WithTimeout(context.Background(), expireTimeout)
	defer cancel()
	go func() { // a closing broker waits for nobody
		select {
		case <-d.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := d.Publish(ctx, letter); err != nil {
		d.drops.count(q.name, "expired")
		d.log.Error("expired message could not be dead-lettered, it is lost", "queue", q.name, "messageId", e.message.ID, "error", err)
	}
}

// overflowed puts what a queue had no room for into the queue that hears of it, where there is one with room.
func (d *Driver) overflowed(from *queue, m *bus.Message) {
	d.mu.RLock()
	to := d.queues[from.overflow]
	d.mu.RUnlock()
	if to == nil || to == from {
		return
	}
	select {
	case to.room <- struct{}{}:
	default:
		return
	}
	told := clone(m)
	if told.Headers == nil {
		told.Headers = map[string]string{}
	}
	told.Headers[bus.HeaderOverflowQueue], told.Headers[bus.HeaderOverflowReason] = from.name, bus.OverflowReason
	to.add(told)
}

// drops counts and logs what a limit removes.
type drops struct {
	log     *slog.Logger
	counter metric.Int64Counter
	total   atomic.Int64
}

// logEvery is how many drops one line of the log stands for, after the first: a flood of drops must not become a flood
// of lines.
const logEvery = 1000

func newDrops(cfg Config) *drops {
	counter, err := cfg.MeterProvider.Meter("github.com/bannou-mesh/bannou/pkg/bus/memorybus").Int64Counter(
		"bannou.memorybus.dropped", metric.WithUnit("{message}"),
		metric.WithDescription("messages that a queue's limit removed, by queue and reason"))
	if err != nil {
		cfg.Logger.Error("dropped messages are logged but not counted", "error", err)
	}
	return &drops{log: cfg.Logger, counter: counter}
}

func (d *drops) count(queue, reason string) {
	total := d.total.Add(1)
	d.counter.Add(context.Background(), 1, metric.WithAttributes(attribute.String("queue", queue), attribute.String("reason", reason)))
	if total%logEvery == 1 {
		d.log.Warn("messages dropped by a limit", "queue", queue, "reason", reason, "total", total)
	}
}
