package messaging

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/state"
)

const (
	lease        = 30 * time.Second // of a claim; a batch ends before
	leaseMargin  = 10 * time.Second // to write down what became of it
	batchEntries = 500
	batchBytes   = 8 << 20
	sendTimeout  = 5 * time.Second // without a confirmation
	inFlight     = 256             // events at a time

	busyTick  = time.Second      // how often the table is read while something waits
	idleTick  = 15 * time.Second // and while nothing is known to
	leastWait = 100 * time.Millisecond
	mostWait  = 2 * time.Second
)

// relay sends what waits, from when it begins until ctx ends. It is one goroutine; the claims keep other processes'
// relays from what it has in work.
func (o *outbox) relay(ctx context.Context) {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		moved, err := o.round(ctx)
		wake := o.wake
		switch {
		case err != nil:
			pause = min(max(2*pause, leastWait), mostWait)
			wake = nil // what is added meanwhile waits for the same
		case moved:
			pause = 0
			continue
		default:
			pause = idleTick
			if o.broker.isAway() || !o.keys.none() || o.figures().Depth > 0 {
				pause = busyTick
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
		if err == nil {
			pause = 0
		}
	}
}

// round claims a batch, sends it, and writes down what became of it. moved: something was sent, and there may be more.
func (o *outbox) round(ctx context.Context) (moved bool, err error) {
	if time.Since(o.read) >= busyTick {
		if err := o.refresh(ctx, nil); err != nil {
			return false, err
		}
	}
	if o.figures().Depth == 0 {
		return false, o.probe(ctx)
	}
	most := batchEntries
	if o.broker.isAway() {
		most = 1 // find out whether it is back
	}
	batch, err := o.box.Claim(ctx, state.OutboxClaim{Owner: o.owner, Lease: lease, MaxEntries: most, MaxBytes: batchBytes})
	o.triedReading(err)
	if err != nil {
		return false, err
	}
	if len(batch) == 0 { // others are at it
		return false, o.probe(ctx)
	}
	sending, cancel := context.WithTimeout(ctx, lease-leaseMargin)
	outcomes := o.send(sending, batch)
	cancel()
	return o.settle(ctx, batch, outcomes)
}

// probe finds out whether the broker is back when there is nothing to send.
func (o *outbox) probe(ctx context.Context) error {
	if !o.broker.isAway() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.after)
	defer cancel()
	if err := o.bus.Ready(ctx); err != nil {
		return err
	}
	o.isBack()
	return nil
}

func (o *outbox) isGone(err error) {
	if o.broker.setAway(true) {
		o.logger.Warn("the broker is away: events that are published over HTTP are kept in the outbox", "error", err)
	}
}

func (o *outbox) isBack() {
	if o.broker.setAway(false) {
		o.logger.Info("the broker is back: the outbox is being sent", "waiting", o.figures().Depth)
		o.back()
	}
}

// refresh reads the figures, and which keys wait: those given, or all.
func (o *outbox) refresh(ctx context.Context, among []string) error {
	ctx, cancel := context.WithTimeout(ctx, storing)
	defer cancel()
	seen := o.keys.versions(among)
	found, err := o.box.Keys(ctx, among)
	if err == nil {
		o.keys.settle(seen, found, among == nil)
		_, err = o.recount(ctx)
	}
	o.triedReading(err)
	if err == nil && among == nil {
		o.read = time.Now()
	}
	return err
}

// recount reads the figures.
func (o *outbox) recount(ctx context.Context) (state.OutboxStats, error) {
	stats, err := o.box.Stats(ctx)
	if err == nil {
		o.mu.Lock()
		o.stats = stats
		o.mu.Unlock()
	}
	return stats, err
}

// triedReading remembers that the table cannot be read. That it can does not mean that it has room.
func (o *outbox) triedReading(err error) {
	if full := o.spools(); err != nil || !errors.Is(full, state.ErrFull) && !errors.Is(full, state.ErrNoSpace) {
		o.tried(err)
	}
}

// settle writes down what became of a batch, also when ctx has ended.
func (o *outbox) settle(ctx context.Context, batch []state.OutboxEntry, outcomes []outcome) (moved bool, err error) {
	store, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseMargin)
	defer cancel()
	var (
		done, free []int64
		failure    error
	)
	keys := map[string]bool{}
	for i := range batch {
		e := &batch[i]
		if e.Key != "" {
			keys[e.Key] = true
		}
		switch out := outcomes[i]; {
		case out.done:
			done = append(done, e.ID)
		case out.poison != "":
			o.logger.ErrorContext(ctx, "an event of the outbox cannot be sent, and was set aside in the table",
				"topic", e.Topic, "row", e.ID, "error", out.poison)
			o.metrics.failed.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", "parked")))
			err = errors.Join(err, o.box.Park(store, o.owner, e.ID, out.poison))
			moved = true
		default:
			free = append(free, e.ID)
			if out.err != nil {
				o.metrics.failed.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", "unavailable")))
				failure = out.err
			}
		}
	}
	if len(done) > 0 {
		moved = true
		o.metrics.sent.Add(ctx, int64(len(done)))
		err = errors.Join(err, o.box.Delete(store, o.owner, done...))
	}
	if len(free) > 0 {
		err = errors.Join(err, o.box.Release(store, o.owner, free...))
	}
	switch {
	case failure != nil && ctx.Err() == nil:
		o.isGone(failure)
	case len(done) > 0:
		o.isBack()
	}
	if err == nil {
		if moved {
			o.tried(nil)
		}
		among := make([]string, 0, len(keys))
		for key := range keys {
			among = append(among, key)
		}
		err = o.refresh(store, among)
	}
	return moved, errors.Join(err, failure)
}
