package mesh

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
)

// A Source is what a Directory reads: a *Registry, or a client of a remote one. It is safe for concurrent use.
type Source interface {
	List(ctx context.Context, includeUnhealthy bool) ([]Endpoint, error)
	Mappings(ctx context.Context) (Mappings, error)
}

var _ Source = (*Registry)(nil)

// DirectoryConfig configures a Directory. The zero value is ready to use.
type DirectoryConfig struct {
	// RefreshInterval is the time between two reads of the source; a tenth is added or taken by chance, so that nodes
	// started together do not read together. Default 15 s.
	RefreshInterval time.Duration
	// RefreshTimeout bounds one read of the source. Default 5 s.
	RefreshTimeout time.Duration
	// ForgetAfter is how long an instance is kept that the source no longer has and that nobody announced as gone. A
	// registry that comes back empty, or after more than an instance's life, is filled again by the next heartbeats: until
	// then it has nobody, and all may be there. Default 35 s, a heartbeat's interval and 5 s; negative: not at all.
	ForgetAfter time.Duration
	// MissInterval is the least time between two reads that calls to unknown names cause. Default 1 s.
	MissInterval time.Duration
	// Logger hears when source or feed go away and come back. Default: nobody.
	Logger *slog.Logger
	// MeterProvider gets, while Run runs, the gauges bannou.mesh.directory.age (seconds since the source was last read; none
	// before the first time) and bannou.mesh.mappings.version. Default: none.
	MeterProvider metric.MeterProvider
}

// A Directory is this process's copy of the registry, made to be read on every call: AppID, Endpoints and Resolve read
// an immutable snapshot, without locks and without I/O. Run keeps it up to date, by the feed and by reading the source
// from time to time. When these are away it serves what it knew last, for as long as it takes, and a little longer.
type Directory struct {
	source  Source
	feed    Feed
	cfg     DirectoryConfig
	current atomic.Pointer[snapshot]
	started atomic.Bool
	running chan struct{} // closed when the feed is watched and the source has been read
	wake    chan struct{} // asks Run to refresh now

	mu      sync.Mutex // guards what follows, and makes changes of current one at a time
	reading *reading   // the read of the source under way
	missed  time.Time  // when a miss last caused one
	absent  absences   // who was not in the last read, and is kept for now
	older   bool       // the last read had older mappings than those in force here
}

// A reading is one read of the source. Changes that arrive while it runs may or may not be in what it returns, so they
// are applied again on top of it.
type reading struct {
	done    chan struct{}
	cancel  context.CancelFunc
	err     error
	changes []Change
}

// NewDirectory returns a directory that knows nothing yet: call Run, or Refresh.
func NewDirectory(source Source, feed Feed, cfg DirectoryConfig) *Directory {
	if cfg.RefreshInterval <= 0 {
		cfg.RefreshInterval = 15 * time.Second
	}
	if cfg.RefreshTimeout <= 0 {
		cfg.RefreshTimeout = 5 * time.Second
	}
	if cfg.ForgetAfter == 0 {
		cfg.ForgetAfter = HeartbeatInterval + 5*time.Second
	}
	if cfg.MissInterval <= 0 {
		cfg.MissInterval = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = metricnoop.NewMeterProvider()
	}
	d := &Directory{source: source, feed: feed, cfg: cfg, running: make(chan struct{}), wake: make(chan struct{}, 1)}
	d.current.Store(&snapshot{apps: map[string]*group{}, offered: map[string]int{}})
	return d
}

// AppID returns the app-id that a service is mapped to, the default one if it is not mapped.
func (d *Directory) AppID(service string) string { return d.current.Load().mappings.AppID(service) }

// Mappings returns the mappings as known here. The map is shared: it must not be changed.
func (d *Directory) Mappings() Mappings { return d.current.Load().mappings }

// Endpoints returns the instances of an app-id that a request may be sent to, by instance id; see [Usable]. The slice
// and what it points to are shared: they must not be changed, and they do not change.
func (d *Directory) Endpoints(appID string) []*Endpoint {
	if g := d.current.Load().apps[appID]; g != nil {
		return g.usable
	}
	return nil
}

// Resolve returns the app-id that a target means: a mapped service's; a registered app-id itself; for a service that
// some instance offers, the default app-id. known is false when the target is none of these; the app-id is the default
// one then.
func (d *Directory) Resolve(target string) (appID string, known bool) {
	return d.current.Load().resolve(target)
}

func (s *snapshot) resolve(target string) (appID string, known bool) {
	if app := s.mappings.Services[target]; app != "" {
		return app, true
	}
	byDefault := s.mappings.AppID(target)
	if s.apps[target] != nil || target == byDefault {
		return target, true
	}
	return byDefault, s.offered[target] > 0
}

// Age is the time since the source was last read; ok is false if it never was. More than a few refresh intervals means
// that the source is away.
func (d *Directory) Age() (age time.Duration, ok bool) {
	at := d.current.Load().refreshed
	if at.IsZero() {
		return 0, false
	}
	return time.Since(at), true
}

// A DirectoryState is what a directory knows of itself.
type DirectoryState struct {
	Version         uint64        // counts what was put in place, from 1; 0: nothing is known yet
	MappingsVersion int64         // of the mappings in force here; 0: none were ever set
	Endpoints       int           // how many instances are known, in any health
	Read            bool          // whether the source was ever read
	Age             time.Duration // since the source was last read
}

// State returns what the directory knows of itself, all of one instant.
func (d *Directory) State() DirectoryState {
	now := d.current.Load()
	s := DirectoryState{Version: now.version, MappingsVersion: now.mappings.Version, Read: !now.refreshed.IsZero()}
	if s.Read {
		s.Age = time.Since(now.refreshed)
	}
	for _, g := range now.apps {
		s.Endpoints += len(g.all)
	}
	return s
}

// Running is closed once Run watches the feed and has read the source.
func (d *Directory) Running() <-chan struct{} { return d.running }

// endReading stops a read under way and waits for its end.
func (d *Directory) endReading() {
	d.mu.Lock()
	r := d.reading
	d.mu.Unlock()
	if r != nil {
		r.cancel()
		<-r.done
	}
}

// apply takes over one change from the feed.
func (d *Directory) apply(c Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.reading != nil {
		d.reading.changes = append(d.reading.changes, c)
	}
	next, incomplete := d.current.Load().apply(c)
	d.replace(next)
	if incomplete {
		select {
		case d.wake <- struct{}{}:
		default: // asked already
		}
	}
}

// Refresh reads the source and replaces what the directory knows. Calls that come while one is under way wait for that
// one and share its result. On an error the directory keeps what it knew.
func (d *Directory) Refresh(ctx context.Context) error {
	d.mu.Lock()
	r := d.reading
	if r == nil {
		// Not the caller's context: others may be waiting when the caller gives up. It ends with RefreshTimeout.
		reads, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.RefreshTimeout)
		r = &reading{done: make(chan struct{}), cancel: cancel}
		d.reading = r
		go d.read(reads, r)
	}
	d.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("refresh of the mesh directory: %w", context.Cause(ctx))
	}
}

func (d *Directory) read(ctx context.Context, r *reading) {
	defer r.cancel()
	endpoints, err := d.source.List(ctx, true)
	var mappings Mappings
	if err == nil {
		mappings, err = d.source.Mappings(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer close(r.done)
	d.reading = nil
	if err != nil {
		r.err = fmt.Errorf("refresh of the mesh directory: %w", err)
		d.cfg.Logger.Warn("the mesh registry cannot be read; the last known endpoints serve", "error", err)
		return
	}
	before := d.current.Load()
	kept := d.stillThere(before, endpoints)
	next := snapshotOf(append(endpoints, kept...), d.inForce(before.mappings, mappings))
	next.left = before.left.recent()
	for _, c := range r.changes {
		next, _ = next.apply(c)
	}
	d.replace(next)
}

// inForce chooses between the mappings that are known and those that were read. Read ones with a lower version are in force as
// well, if two reads in a row had some: then the source lost what it had, and versions count on from there. The first time they may be what the source
// has before it was told what the feed told here. Where none was ever set, the last known ones serve. The lock is held.
func (d *Directory) inForce(known, read Mappings) Mappings {
	again := d.older
	d.older = read.Version < known.Version
	if d.older && !again || read.Version == 0 {
		return known
	}
	return read
}

// replace puts a snapshot in place, as the next version. The lock is held, and nobody else has the snapshot yet.
func (d *Directory) replace(next *snapshot) {
	if current := d.current.Load(); next != current {
		next.version = current.version + 1
		d.current.Store(next)
	}
}

// refreshOnMiss reads the source because a call asked for what the directory does not know, unless one did so a moment
// ago. It reports whether there is something new to look at.
func (d *Directory) refreshOnMiss(ctx context.Context) bool {
	d.mu.Lock()
	due := d.reading != nil || time.Since(d.missed) >= d.cfg.MissInterval
	if due && d.reading == nil {
		d.missed = time.Now()
	}
	d.mu.Unlock()
	return due && d.Refresh(ctx) == nil
}
