package messaging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

// An outbox publishes events while the broker is there, and keeps them in a table while it is not. While a key has events
// in the table, later ones with that key go there too.
//
// As long as nothing waits, publishing asks one atomic flag more than without it.
type outbox struct {
	box    state.Outbox
	bus    *bus.Bus
	after  time.Duration // how long a publish may take before the event is kept
	owner  string        // of this process's claims
	logger *slog.Logger

	broker  brokerState
	keys    waitingKeys
	metrics *outboxMetrics
	wake    chan struct{}                                         // asks the relay to look now
	read    time.Time                                             // when the relay read the whole table last
	sent    func(ctx context.Context, topic, id string, size int) // called for each event that was sent
	back    func()                                                // called when the broker is back

	mu      sync.Mutex
	stats   state.OutboxStats // as the relay has seen them last, and what was added since
	trouble error             // why the table could not be used last time
}

// storing bounds what is done with the table for one event.
const storing = 5 * time.Second

func newOutbox(cfg *Config) (*outbox, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("messaging: cannot make an id: %w", err)
	}
	o := &outbox{
		box: cfg.Outbox, bus: cfg.Bus, after: cfg.OutboxAfter, owner: id.String(), logger: cfg.Logger, wake: make(chan struct{}, 1),
	}
	o.metrics, err = newOutboxMetrics(cfg.MeterProvider, o)
	return o, err
}

// publish sends an event, or keeps it; then it is queued. It returns within the time to keep it after the time to send it.
func (o *outbox) publish(ctx context.Context, p bus.Prepared) (queued bool, err error) {
	key := p.Options.PartitionKey
	if o.direct(ctx, key) {
		try, cancel := context.WithTimeout(ctx, o.after)
		err = o.bus.PublishPrepared(try, p)
		cancel()
		if err == nil || !isAway(err) || ctx.Err() != nil {
			return false, err
		}
		o.isGone(err)
		o.keys.adding(key)
	}
	defer o.keys.added(key)
	storeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storing) // the caller may be gone: the answer is the same
	defer cancel()
	if storeErr := o.enqueue(storeCtx, p); storeErr != nil {
		return false, errors.Join(err, storeErr)
	}
	return true, nil
}

// isAway reports whether an event that failed so should be kept: the broker cannot be reached, or does not answer.
func isAway(err error) bool {
	return errors.Is(err, bus.ErrUnavailable) || errors.Is(err, bus.ErrNotConfirmed) || errors.Is(err, context.DeadlineExceeded)
}

// direct reports whether an event of that key may go to the broker now. If not, the key is marked as one that is being
// added to. A key whose last events are just being sent is waited for: one that is published to without a pause would
// otherwise never leave the table.
func (o *outbox) direct(ctx context.Context, key string) bool {
	if o.broker.isAway() {
		o.keys.adding(key)
		return false
	}
	if o.keys.none() || key == "" {
		return true
	}
	for deadline := time.Now().Add(o.after); ; {
		gone := o.keys.addingUnlessGone(key, o.figures().Depth <= fewEntries && time.Now().Before(deadline))
		if gone == nil {
			return false
		}
		timer := time.NewTimer(time.Until(deadline))
		select {
		case <-gone:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		switch {
		case o.broker.isAway():
			o.keys.adding(key)
			return false
		case !o.keys.waits(key):
			return true
		case ctx.Err() != nil:
			o.keys.adding(key)
			return false
		}
	}
}

// fewEntries is how many events the relay is taken to send soon.
const fewEntries = 1000

// enqueue keeps an event in the table.
func (o *outbox) enqueue(ctx context.Context, p bus.Prepared) error {
	p.Options.Headers = maps.Clone(p.Options.Headers)
	if p.Options.Headers == nil {
		p.Options.Headers = map[string]string{}
	}
	propagation.TraceContext{}.Inject(ctx, propagation.MapCarrier(p.Options.Headers))
	entry, err := newEntry(p)
	if err != nil {
		return err
	}
	err = o.box.Enqueue(ctx, entry)
	o.tried(err)
	if err != nil {
		return err
	}
	o.mu.Lock()
	o.stats.Depth++
	o.stats.Bytes += entry.Size()
	if o.stats.Oldest.IsZero() {
		o.stats.Oldest = time.Now()
	}
	o.mu.Unlock()
	o.metrics.enqueued.Add(ctx, 1)
	o.look()
	return nil
}

// look has the relay look at the table now.
func (o *outbox) look() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// tried remembers whether the table could be used.
func (o *outbox) tried(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.trouble = err
}

// figures are the last known ones.
func (o *outbox) figures() state.OutboxStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stats
}

// spools says why events cannot be kept, as far as that is known without asking; nil: they can.
func (o *outbox) spools() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.trouble
}
