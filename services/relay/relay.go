package relay

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/state"
)

const (
	lease        = 30 * time.Second // of a claim; a batch ends before
	leaseMargin  = 10 * time.Second // to write down what became of it
	batchEntries = 500
	batchBytes   = 8 << 20
	sendTimeout  = 5 * time.Second  // without a confirmation
	refusedPause = 15 * time.Second // before a topic is tried again that the broker refuses, as where a queue is full
	inFlight     = 256              // events at a time
	storing      = 5 * time.Second  // what is read of the table at a time

	busyTick  = time.Second      // how often the table is read while something waits
	idleTick  = 15 * time.Second // and while nothing is known to
	leastWait = 100 * time.Millisecond
	mostWait  = 2 * time.Second
)

// Config describes a Relay.
type Config struct {
	// Outbox is what is sent, and Bus where it goes. Required.
	Outbox state.Outbox
	Bus    *bus.Bus

	// Service is whose events they are; it names the metrics, bannou.{Service}.outbox.*. Required.
	Service string
	// Attributes tell the metrics of several outboxes of one service apart. Default: none.
	Attributes []attribute.KeyValue
	// MeterProvider receives the metrics. Default: none.
	MeterProvider metric.MeterProvider
	// Logger hears of the broker's coming and going, and of events that cannot be sent. Default: nobody.
	Logger *slog.Logger

	// FollowKeys has Keys know which keys wait. Default: nobody asks.
	FollowKeys bool
	// Patience is how long a broker that is away is asked whether it is back. Default: 2 s.
	Patience time.Duration

	// Sent is called for each event that was sent, with the context of its trace. Default: nobody.
	Sent func(ctx context.Context, topic, id string, size int)
	// Back is called when the broker is back. Default: nobody.
	Back func()
}

// A Relay sends the events of one outbox. It is safe for concurrent use; Run is called once.
type Relay struct {
	cfg     Config
	owner   string // of this process's claims; Run's own
	keys    Keys
	metrics *relayMetrics
	wake    chan struct{}        // asks for a look at the table now
	read    time.Time            // when the whole table was read last; Run's own
	away    atomic.Bool          // the broker is known to be
	ready   bool                 // the bus was, once; Run's own
	refused map[string]time.Time // topics that the broker refuses, and until when they are not tried; Run's own
	stale   atomic.Bool          // something was added since the table was looked at

	mu      sync.Mutex
	stats   state.OutboxStats // as they were read last, and what was added since
	trouble error             // why the table could not be used last time
}

// errUnread is the trouble of a relay that has not found its table yet: nobody may count on it.
var errUnread = errors.New("the outbox was not read yet")

// New makes a relay. It does nothing before Run.
func New(cfg Config) (*Relay, error) {
	if cfg.Outbox == nil || cfg.Bus == nil || cfg.Service == "" {
		return nil, errors.New("relay: it needs an outbox, a bus and the name of a service")
	}
	cfg.Patience = cmp.Or(cfg.Patience, 2*time.Second)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Sent == nil {
		cfg.Sent = func(context.Context, string, string, int) {}
	}
	if cfg.Back == nil {
		cfg.Back = func() {}
	}
	r := &Relay{cfg: cfg, wake: make(chan struct{}, 1), trouble: errUnread, refused: map[string]time.Time{}}
	if err := r.renewOwner(); err != nil {
		return nil, err
	}
	var err error
	r.metrics, err = newMetrics(&r.cfg, r)
	return r, err
}

// Keys are the keys that wait, where Config.FollowKeys asks for them.
func (r *Relay) Keys() *Keys { return &r.keys }

// Outbox is what is sent.
func (r *Relay) Outbox() state.Outbox { return r.cfg.Outbox }

// Enqueue adds an event to the outbox and sends it soon.
func (r *Relay) Enqueue(ctx context.Context, e state.OutboxEntry) error {
	err := r.cfg.Outbox.Enqueue(ctx, e)
	r.tried(err)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.stats.Depth++
	r.stats.Bytes += e.Size()
	if r.stats.Oldest.IsZero() {
		r.stats.Oldest = time.Now()
	}
	r.mu.Unlock()
	r.Added(ctx)
	return nil
}

// Added tells that an event was added to the outbox by somebody else, in this process.
func (r *Relay) Added(ctx context.Context) {
	r.metrics.enqueued.Add(ctx, 1, r.metrics.of)
	r.Look()
}

// Look has the relay look at the table now.
func (r *Relay) Look() {
	r.stale.Store(true)
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// tried remembers whether the table could be used.
func (r *Relay) tried(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trouble = err
}

// Figures are the last known ones.
func (r *Relay) Figures() state.OutboxStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Trouble says why the table cannot be used, as far as that is known without asking; nil: it can.
func (r *Relay) Trouble() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trouble
}

// Away reports whether the broker is known to be away.
func (r *Relay) Away() bool { return r.away.Load() }

// Lost tells that somebody found the broker away.
func (r *Relay) Lost(err error) {
	if !r.away.Swap(true) {
		r.cfg.Logger.Warn("the broker is away: events wait in the outbox", "of", r.cfg.Service, "error", err)
	}
}

func (r *Relay) isBack() {
	if r.away.Swap(false) {
		r.cfg.Logger.Info("the broker is back: the outbox is being sent", "of", r.cfg.Service, "waiting", r.Figures().Depth)
		r.cfg.Back()
	}
}

// Run sends what waits until ctx ends. The claims keep other relays, of this process and of others, from what it has in
// work.
func (r *Relay) Run(ctx context.Context) {
	pause := time.Duration(0)
	for ctx.Err() == nil {
		moved, err := r.round(ctx)
		wake := r.wake
		switch {
		case err != nil:
			pause = min(max(2*pause, leastWait), mostWait)
			wake = nil // what is added meanwhile waits for the same
		case moved:
			pause = 0
			continue
		default:
			pause = idleTick
			if r.Away() || !r.keys.None() && r.cfg.FollowKeys || r.Figures().Depth > 0 {
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
func (r *Relay) round(ctx context.Context) (moved bool, err error) {
	stale := r.stale.Swap(false)
	defer func() {
		if err != nil && stale { // what has come is still to be looked for
			r.stale.Store(true)
		}
	}()
	if time.Since(r.read) >= busyTick {
		if err := r.Refresh(ctx); err != nil {
			return false, err
		}
	}
	if r.Figures().Depth == 0 && !stale {
		return false, r.probe(ctx)
	}
	if err := r.await(ctx); err != nil {
		return false, err
	}
	most := batchEntries
	if r.Away() {
		most = 1 // find out whether it is back
	}
	asked := time.Now()
	batch, err := r.cfg.Outbox.Claim(ctx, state.OutboxClaim{Owner: r.owner, Lease: lease, MaxEntries: most, MaxBytes: batchBytes})
	r.triedReading(err)
	if err != nil {
		return false, err
	}
	if len(batch) == 0 { // others are at it, or were
		_, err := r.Recount(ctx)
		return false, errors.Join(err, r.probe(ctx))
	}
	// The claim lasts from some moment behind asked: its answer may be late, as where the process was stopped.
	sending, cancel := context.WithDeadline(ctx, asked.Add(lease-leaseMargin))
	outcomes := r.send(sending, batch)
	cancel()
	return r.settle(ctx, batch, outcomes)
}

// await is nil once the bus has been ready: before, on a new broker, what is sent would find no queues of the handlers beside the relay.
func (r *Relay) await(ctx context.Context) error {
	if r.ready {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Patience)
	defer cancel()
	err := r.cfg.Bus.Ready(ctx)
	r.ready = err == nil
	if err != nil && !errors.Is(err, bus.ErrNotReading) {
		r.Lost(err)
	}
	return err
}

// probe finds out whether the broker is back when there is nothing to send.
func (r *Relay) probe(ctx context.Context) error {
	if !r.Away() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Patience)
	defer cancel()
	if err := r.cfg.Bus.Ready(ctx); err != nil {
		return err
	}
	r.isBack()
	return nil
}

// Refresh reads the figures, and which keys wait. It is for the time before Run, which does so itself.
func (r *Relay) Refresh(ctx context.Context) error {
	err := r.refresh(ctx, nil)
	if err == nil {
		r.read = time.Now()
	}
	return err
}

// refresh reads the figures, and which keys wait: those given, or all.
func (r *Relay) refresh(ctx context.Context, among []string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, storing)
	defer cancel()
	if r.cfg.FollowKeys {
		var found []string
		seen := r.keys.versions(among)
		if found, err = r.cfg.Outbox.Keys(ctx, among); err == nil {
			r.keys.settle(seen, found, among == nil)
		}
	}
	if err == nil {
		_, err = r.Recount(ctx)
	}
	r.triedReading(err)
	return err
}

// Recount reads the figures.
func (r *Relay) Recount(ctx context.Context) (state.OutboxStats, error) {
	stats, err := r.cfg.Outbox.Stats(ctx)
	if err == nil {
		r.mu.Lock()
		r.stats = stats
		r.mu.Unlock()
	}
	return stats, err
}

// triedReading remembers that the table cannot be read. That it can does not mean that it has room.
func (r *Relay) triedReading(err error) {
	if full := r.Trouble(); err != nil || !errors.Is(full, state.ErrFull) && !errors.Is(full, state.ErrNoSpace) {
		r.tried(err)
	}
}

// settle writes down what became of a batch, also when ctx has ended.
func (r *Relay) settle(ctx context.Context, batch []state.OutboxEntry, outcomes []outcome) (moved bool, err error) {
	store, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseMargin)
	defer cancel()
	var (
		done, free []int64
		failure    error
		held       int
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
			r.cfg.Logger.ErrorContext(ctx, "an event of the outbox cannot be sent, and was set aside in the table",
				"topic", e.Topic, "row", e.ID, "error", out.poison)
			r.metrics.failed.Add(ctx, 1, r.metrics.of, metric.WithAttributes(attribute.String("reason", "parked")))
			err = errors.Join(err, r.cfg.Outbox.Park(store, r.owner, e.ID, out.poison))
			moved = true
		case out.held:
			held++
			r.metrics.failed.Add(ctx, 1, r.metrics.of, metric.WithAttributes(attribute.String("reason", "refused")))
		default:
			free = append(free, e.ID)
			if out.err != nil {
				r.metrics.failed.Add(ctx, 1, r.metrics.of, metric.WithAttributes(attribute.String("reason", "unavailable")))
				failure = out.err
			}
		}
	}
	if len(done) > 0 {
		moved = true
		r.metrics.sent.Add(ctx, int64(len(done)), r.metrics.of)
		err = errors.Join(err, r.cfg.Outbox.Delete(store, r.owner, done...))
	}
	if len(free) > 0 {
		err = errors.Join(err, r.cfg.Outbox.Release(store, r.owner, free...))
	}
	if held > 0 {
		moved = true // what is behind them can be sent
		err = errors.Join(err, r.renewOwner())
	}
	switch {
	case failure != nil && ctx.Err() == nil:
		r.Lost(failure)
	case len(done) > 0 || held > 0:
		r.isBack()
	}
	if err == nil {
		if moved {
			r.tried(nil)
		}
		among := make([]string, 0, len(keys))
		for key := range keys {
			among = append(among, key)
		}
		err = r.refresh(store, among)
	}
	return moved, errors.Join(err, failure)
}
