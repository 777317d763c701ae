package messaging

import (
	"context"
	"errors"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/relay"
)

// An outbox publishes events while the broker is there, and keeps them in a table while it is not, for a relay to send.
// While a key has events in the table, later ones with that key go there too.
//
// As long as nothing waits, publishing asks one atomic flag more than without it.
type outbox struct {
	bus   *bus.Bus
	after time.Duration // how long a publish may take before the event is kept
	relay *relay.Relay
	keys  *relay.Keys // which wait
}

// storing bounds what is done with the table for one event.
const storing = 5 * time.Second

func newOutbox(cfg *Config, s *Service) (*outbox, error) {
	r, err := relay.New(relay.Config{
		Outbox: cfg.Outbox, Bus: cfg.Bus, Service: "messaging", MeterProvider: cfg.MeterProvider, Logger: cfg.Logger,
		FollowKeys: true, Patience: cfg.OutboxAfter, Sent: s.announcePublished, Back: s.reconcileNow,
	})
	if err != nil {
		return nil, err
	}
	return &outbox{bus: cfg.Bus, after: cfg.OutboxAfter, relay: r, keys: r.Keys()}, nil
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
		if !errors.Is(err, bus.ErrRefused) { // one queue is full, and the broker there for all others
			o.relay.Lost(err)
		}
		o.keys.Adding(key)
	}
	defer o.keys.Added(key)
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
	if o.relay.Away() {
		o.keys.Adding(key)
		return false
	}
	if o.keys.None() || key == "" {
		return true
	}
	for deadline := time.Now().Add(o.after); ; {
		gone := o.keys.AddingUnlessGone(key, o.relay.Figures().Depth <= fewEntries && time.Now().Before(deadline))
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
		case o.relay.Away():
			o.keys.Adding(key)
			return false
		case !o.keys.Waits(key):
			return true
		case ctx.Err() != nil:
			o.keys.Adding(key)
			return false
		}
	}
}

// fewEntries is how many events the relay is taken to send soon.
const fewEntries = 1000

// enqueue keeps an event in the table.
func (o *outbox) enqueue(ctx context.Context, p bus.Prepared) error {
	entry, err := relay.NewEntry(ctx, p)
	if err != nil {
		return err
	}
	return o.relay.Enqueue(ctx, entry)
}
