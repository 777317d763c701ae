package migrate

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Config says which stores of a driver are migrated.
type Config struct {
	// To says where the store of a configuration is migrated to; false: it is not migrated. The places' drivers belong to the caller, and
	// must be closed after this one. Required.
	To func(store state.StoreConfig) (Place, bool)

	// Logger hears of changes that cannot be carried. Default: none.
	Logger *slog.Logger

	// MeterProvider receives bannou.state.migration.carried and bannou.state.migration.failures, in keys, by store. Default: none.
	MeterProvider metric.MeterProvider
}

// Wrap returns a driver whose stores are those of d, and those of cfg in two places. A store is served where the record of its migration
// says; while none was begun, that is d. Both places must be there when a node serves the store for the first time; after that, only
// the one that decides.
//
// The driver keeps outboxes and announces changes if d does, but for the stores that are migrated: their changes are told after they were
// made. It closes d.
func Wrap(d state.Driver, cfg Config) (state.Driver, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = noop.NewMeterProvider()
	}
	meter := cfg.MeterProvider.Meter("github.com/bannou-mesh/bannou/pkg/state/migrate")
	carried, err := meter.Int64Counter("bannou.state.migration.carried", metric.WithUnit("{key}"),
		metric.WithDescription("Keys of stores being migrated that were carried to the other place after a change."))
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	failures, err := meter.Int64Counter("bannou.state.migration.failures", metric.WithUnit("{key}"),
		metric.WithDescription("Tries to carry such keys that failed."))
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &driver{Driver: d, cfg: cfg, carried: carried, failures: failures, ctx: ctx, stop: stop}
	if announcer, ok := d.(state.Announcer); ok {
		return announcingDriver{outboxDriver{w, announcer}, announcer}, nil
	}
	if outboxes, ok := d.(state.OutboxDriver); ok {
		return outboxDriver{w, outboxes}, nil
	}
	return w, nil
}

type driver struct {
	state.Driver
	cfg               Config
	carried, failures metric.Int64Counter

	ctx  context.Context //nolint:containedctx // of all that followers do
	stop context.CancelFunc

	mu      sync.Mutex
	follows []*follower
}

// An outboxDriver is a driver that keeps outboxes, all of them where they were.
type outboxDriver struct {
	*driver
	outboxes state.OutboxDriver
}

// OpenOutbox implements state.OutboxDriver.
func (d outboxDriver) OpenOutbox(ctx context.Context, cfg state.OutboxConfig) (state.Outbox, error) {
	return d.outboxes.OpenOutbox(ctx, cfg)
}

// An announcingDriver is one whose stores announce their changes, those that are not migrated.
type announcingDriver struct {
	outboxDriver
	announcer state.Announcer
}

// OpenAnnouncing implements state.Announcer. The place that decides changes, and not every one has an outbox.
func (d announcingDriver) OpenAnnouncing(ctx context.Context, cfg state.StoreConfig, box state.OutboxConfig) (state.Engine, error) {
	if _, migrated := d.cfg.To(cfg); migrated {
		return nil, fmt.Errorf("%w: changes of a store that is migrated do not go to an outbox", state.ErrUnsupported)
	}
	return d.announcer.OpenAnnouncing(ctx, cfg, box)
}

// Open implements state.Driver.
func (d *driver) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	to, migrated := d.cfg.To(cfg)
	if !migrated {
		return d.Driver.Open(ctx, cfg)
	}
	to.Store.Name = cfg.Name
	old, young, err := openSides(ctx, Place{Driver: d.Driver, Store: cfg}, to)
	if err != nil {
		return nil, err
	}
	e := &engine{
		store: cfg.Name,
		guard: &guard{from: old, to: young, looking: make(chan struct{}, 1)},
		follow: &follower{store: cfg.Name, log: d.cfg.Logger, ctx: d.ctx, count: func(carried, failed int) {
			of := metric.WithAttributes(attribute.String("store", cfg.Name))
			d.carried.Add(d.ctx, int64(carried), of)
			d.failures.Add(d.ctx, int64(failed), of)
		}},
	}
	d.mu.Lock()
	d.follows = append(d.follows, e.follow)
	d.mu.Unlock()
	_, oldQueries := old.engine.(state.Querier)
	_, youngQueries := young.engine.(state.Querier)
	if oldQueries || youngQueries {
		return queryable{e}, nil
	}
	return e, nil
}

// Close ends the carrying of changes; what was not carried yet is noted.
func (d *driver) Close() error {
	d.stop()
	d.mu.Lock()
	follows := d.follows
	d.mu.Unlock()
	for _, f := range follows {
		f.close()
	}
	return d.Driver.Close()
}
