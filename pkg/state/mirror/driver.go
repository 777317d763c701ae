package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Wrap returns a driver whose stores are those of d, and are compared with their counterparts. It keeps outboxes and inboxes and announces
// changes as d does, and closes d, but not the drivers of the counterparts.
//
// A counterpart that cannot be opened does not keep the store from opening: it is tried again with the next keys.
func Wrap(d state.Driver, cfg Config) (state.Driver, error) {
	if cfg.Ledger == nil {
		cfg.Ledger = NewLedger()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = noop.NewMeterProvider()
	}
	meter := cfg.MeterProvider.Meter("github.com/bannou-mesh/bannou/pkg/state/mirror")
	compared, err := meter.Int64Counter("bannou.state.mirror.compared", metric.WithUnit("{key}"),
		metric.WithDescription("Keys that were compared with the store's counterpart."))
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	differences, err := meter.Int64Counter("bannou.state.mirror.differences", metric.WithUnit("{key}"),
		metric.WithDescription("Keys of them that were not the same there, by reason."))
	if err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &driver{Driver: d, cfg: cfg, compared: compared, differences: differences, ctx: ctx, stop: stop}
	inboxes, keepsInboxes := d.(state.InboxDriver)
	announcer, announces := d.(state.Announcer)
	switch {
	case keepsInboxes && announces:
		return struct {
			*driver
			inboxPart
			announcePart
		}{w, inboxPart{inboxes}, announcePart{w, announcer}}, nil
	case announces:
		return struct {
			*driver
			announcePart
		}{w, announcePart{w, announcer}}, nil
	case keepsInboxes:
		return struct {
			*driver
			inboxPart
		}{w, inboxPart{inboxes}}, nil
	default:
		return w, nil
	}
}

type driver struct {
	state.Driver
	cfg                   Config
	compared, differences metric.Int64Counter

	ctx  context.Context //nolint:containedctx // of all that is compared
	stop context.CancelFunc
	work sync.WaitGroup
}

// An inboxPart is what makes a driver one that keeps inboxes.
type inboxPart struct{ inboxes state.InboxDriver }

// OpenInbox implements state.InboxDriver.
func (p inboxPart) OpenInbox(ctx context.Context, cfg state.InboxConfig) (state.Inbox, error) {
	return p.inboxes.OpenInbox(ctx, cfg)
}

// An announcePart is what makes a driver one that announces changes.
type announcePart struct {
	driver    *driver
	announcer state.Announcer
}

// OpenOutbox implements state.OutboxDriver.
func (p announcePart) OpenOutbox(ctx context.Context, cfg state.OutboxConfig) (state.Outbox, error) {
	return p.announcer.OpenOutbox(ctx, cfg)
}

// OpenAnnouncing implements state.Announcer.
func (p announcePart) OpenAnnouncing(ctx context.Context, cfg state.StoreConfig, box state.OutboxConfig) (state.Engine, error) {
	e, err := p.announcer.OpenAnnouncing(ctx, cfg, box)
	if err != nil {
		return nil, err
	}
	return p.driver.mirrored(cfg, e)
}

// Open implements state.Driver.
func (d *driver) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	e, err := d.Driver.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return d.mirrored(cfg, e)
}

func (d *driver) mirrored(cfg state.StoreConfig, e state.Engine) (state.Engine, error) {
	to, ok := d.cfg.To(cfg)
	if !ok {
		return e, nil
	}
	to, err := to.complete(cfg.Name)
	if err != nil {
		return nil, err
	}
	c := &comparer{driver: d, store: cfg.Name, to: to, here: e,
		looked: make(chan string, to.Queue), fresh: make(chan string, to.Queue), pending: map[string]int{}}
	d.cfg.Ledger.open(cfg.Name, &to, c.waiting, c.behind)
	for range workers {
		d.work.Go(func() { c.run(d.ctx, c.looked, c.look) })
	}
	if to.Writes {
		d.work.Go(func() {
			c.run(d.ctx, c.fresh, c.bring)
			c.rest(d.ctx)
		})
	}
	return wrap(e, c), nil
}

// Settle implements state.Settler: it ends the comparing. What waits is not compared any more; changes that wait are carried, as long as the
// counterpart answers in its time.
func (d *driver) Settle() {
	d.stop()
	d.work.Wait()
}

// Close settles, and closes the driver.
func (d *driver) Close() error {
	d.Settle()
	return d.Driver.Close()
}
