package mesh

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
)

// headStart is how long the first read waits for the feed. A bus that is away is not waited for: the source alone tells who
// is there.
const headStart = 200 * time.Millisecond

// Run keeps the directory up to date until the context ends, then returns nil. Errors of source and feed are logged and
// tried again, not returned: while one of them is away, the other is used. It may be called once.
func (d *Directory) Run(ctx context.Context) error {
	if !d.started.CompareAndSwap(false, true) {
		return errors.New("the directory was started already; make a new one")
	}
	observing, err := d.observe()
	if err != nil {
		return err
	}
	defer func() { _ = observing.Unregister() }() // nothing is left to do about a gauge that stays
	watching := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() { d.keepWatching(ctx, watching) })
	defer watcher.Wait()
	defer d.endReading()
	d.keepReading(ctx, watching)
	return nil
}

// keepReading reads the source from time to time, soon again when that failed, and when the feed begins to be watched.
func (d *Directory) keepReading(ctx context.Context, watching <-chan struct{}) {
	first := time.NewTimer(headStart)
	defer first.Stop()
	select {
	case <-watching:
	case <-first.C:
	case <-ctx.Done():
		return
	}
	up := sync.OnceFunc(func() { close(d.running) })
	begun := watching // nil when it was seen to be closed
	for backoff := time.Second; ; {
		select {
		case <-begun:
			begun = nil
		default:
		}
		// Watch, then read: what changes between the two arrives by the feed.
		err := d.refreshAnew(ctx)
		wait := d.cfg.RefreshInterval
		if err != nil {
			wait = min(backoff, wait)
			backoff = 2 * wait
		} else {
			backoff = time.Second
			if begun == nil {
				up()
			}
		}
		timer := time.NewTimer(wait - wait/10 + rand.N(wait/5+1)) //nolint:gosec // spreads nodes, guards nothing
		select {
		case <-ctx.Done():
		case <-begun:
		case <-d.wake:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// refreshAnew is Refresh, but does not share a read that began before.
func (d *Directory) refreshAnew(ctx context.Context) error {
	d.mu.Lock()
	r := d.reading
	d.mu.Unlock()
	if r != nil {
		select {
		case <-r.done:
		case <-ctx.Done():
		}
	}
	return d.Refresh(ctx)
}

// keepWatching watches the feed until the context ends, and closes watching when it does. A bus that is away is tried again.
func (d *Directory) keepWatching(ctx context.Context, watching chan<- struct{}) {
	for backoff := time.Second; ; backoff = min(2*backoff, d.cfg.RefreshInterval) {
		attempt, cancel := context.WithTimeout(ctx, d.cfg.RefreshTimeout) // it may wait for the bus until then
		stop, err := d.feed.Watch(attempt, d.apply)
		cancel()
		if err == nil {
			close(watching)
			<-ctx.Done()
			stop()
			return
		}
		if ctx.Err() != nil {
			return
		}
		d.cfg.Logger.Warn("the mesh directory cannot watch changes; it reads the registry meanwhile", "error", err)
		timer := time.NewTimer(backoff)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// observe begins to show the directory's age and version whenever metrics are read.
func (d *Directory) observe() (metric.Registration, error) {
	meter := d.cfg.MeterProvider.Meter(scope)
	age, err := meter.Float64ObservableGauge("bannou.mesh.directory.age", metric.WithUnit("s"),
		metric.WithDescription("Time since this node last read the registry: while that is away, how old the endpoints are that serve."))
	if err != nil {
		return nil, err
	}
	version, err := meter.Int64ObservableGauge("bannou.mesh.mappings.version",
		metric.WithDescription("Version of the mappings by which this node routes calls; 0 for none."))
	if err != nil {
		return nil, err
	}
	return meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		s := d.State()
		if s.Read {
			o.ObserveFloat64(age, s.Age.Seconds())
		}
		o.ObserveInt64(version, s.MappingsVersion)
		return nil
	}, age, version)
}
