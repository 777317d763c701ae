package projection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// Config says which projections a process follows, and how.
type Config struct {
	// Definitions are those that the process can follow. None: it can still list and command those of others.
	Definitions []Definition

	// Poll is how often is looked for commands that were given elsewhere, and for events of which no hint came. Default: 250 ms.
	Poll time.Duration

	// Lease is how long a follower that says nothing keeps its version. Default: 15 s. At least 50 ms.
	Lease time.Duration

	// Logger hears of what fails, and of versions that come and go. Default: none.
	Logger *slog.Logger
}

// A Set is the projections that one process follows. It is safe for concurrent use, and owns goroutines until Close.
type Set struct {
	log         *eventstore.Store
	engine      eventstore.Engine
	cfg         Config
	definitions map[string]map[int]*Definition // by name and revision
	inlines     []string                       // names that have an inline revision, in order

	wake    chan struct{}   // has room for one
	ctx     context.Context //nolint:containedctx // ends the loop
	cancel  context.CancelFunc
	done    chan struct{}
	follows map[Version]*eventstore.Subscription // of the loop
	defined map[Version]bool                     // tables are there; of the loop
	soon    bool                                 // a version is nearly there: look again before the next tick; of the loop
}

// Open begins to follow the projections. One that is new gets its first version, which is live at once. Where the database is away, that is
// done when it is back. There is one Set in a process for a log.
func Open(ctx context.Context, log *eventstore.Store, cfg Config) (*Set, error) {
	s := &Set{log: log, engine: log.Engine(), cfg: cfg, definitions: map[string]map[int]*Definition{}, wake: make(chan struct{}, 1), done: make(chan struct{}),
		follows: map[Version]*eventstore.Subscription{}, defined: map[Version]bool{}}
	if err := s.complete(); err != nil {
		return nil, fmt.Errorf("projection: %w", err)
	}
	if len(s.inlines) > 0 {
		s.engine.Inline(s.inline)
	}
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, s.cancel) // the first look ends with the caller's patience
	s.tend()                                 //nolint:contextcheck // it ends with this one until Open returns
	stopped := stop()
	go s.run() //nolint:contextcheck // until Close
	if !stopped {
		return nil, fmt.Errorf("projection: open: %w", errors.Join(context.Cause(ctx), s.Close(ctx)))
	}
	return s, nil
}

func (s *Set) complete() error {
	if s.cfg.Poll < 0 || s.cfg.Lease < 0 {
		return fmt.Errorf("%w: times are not negative", state.ErrInvalid)
	}
	if s.cfg.Poll == 0 {
		s.cfg.Poll = 250 * time.Millisecond
	}
	if s.cfg.Lease == 0 {
		s.cfg.Lease = 15 * time.Second
	}
	if s.cfg.Logger == nil {
		s.cfg.Logger = slog.New(slog.DiscardHandler)
	}
	tables := map[string]string{}
	for _, d := range s.cfg.Definitions {
		if err := d.complete(s.engine.Transactional()); err != nil {
			return fmt.Errorf("%q: %w", d.Name, err)
		}
		if s.definitions[d.Name] == nil {
			s.definitions[d.Name] = map[int]*Definition{}
		}
		if s.definitions[d.Name][d.Revision] != nil {
			return fmt.Errorf("%w: revision %d of %q is defined twice", state.ErrInvalid, d.Revision, d.Name)
		}
		for _, t := range d.Tables {
			if other, taken := tables[t.Name]; taken && other != d.Name {
				return fmt.Errorf("%w: table %q is of %q and of %q", state.ErrInvalid, t.Name, other, d.Name)
			}
			tables[t.Name] = d.Name
		}
		s.definitions[d.Name][d.Revision] = &d
		if d.Inline && !slices.Contains(s.inlines, d.Name) {
			s.inlines = append(s.inlines, d.Name)
		}
	}
	slices.Sort(s.inlines) // in each process the same, so that appends do not wait for each other in a circle
	return nil
}

// Close ends following; others go on. When ctx ends first, what is being applied is undone.
func (s *Set) Close(ctx context.Context) error {
	s.cancel()
	<-s.done
	if len(s.inlines) > 0 {
		s.engine.Inline(nil)
	}
	var errs []error
	for _, sub := range s.follows {
		errs = append(errs, sub.Close(ctx))
	}
	clear(s.follows)
	return errors.Join(errs...)
}

// hurry has the loop look now.
func (s *Set) hurry() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Set) run() {
	defer close(s.done)
	var tick <-chan time.Time
	if len(s.definitions) > 0 { // else there is nothing to do but what it is told
		ticker := time.NewTicker(s.cfg.Poll)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		var soon <-chan time.Time
		if s.soon {
			soon = time.After(s.cfg.Poll / 20)
		}
		select {
		case <-s.ctx.Done():
			return
		case <-tick:
		case <-soon:
		case <-s.wake:
		}
		s.soon = false
		s.tend()
	}
}

// tend does what the entries ask of this process.
func (s *Set) tend() {
	entries, err := s.engine.Projections(s.ctx, "")
	if err != nil {
		s.warn("the projections cannot be read, and will be looked for again", "", err)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(s.definitions)) {
		e, err := decode(entries[name])
		if err == nil {
			e, err = s.enter(name, e)
		}
		if err != nil {
			s.warn("a projection cannot be entered, and will be tried again", name, err)
			continue
		}
		s.leave(name, e)
		for _, v := range e.Versions {
			if err := s.look(name, e, v); err != nil && s.ctx.Err() == nil {
				s.warn("a version cannot be followed, and will be tried again", Version{name, v.Number}.String(), err)
			}
		}
	}
	s.clean(entries)
}

func (s *Set) warn(what, projection string, err error) {
	if s.ctx.Err() == nil {
		s.cfg.Logger.Warn(what, "projection", projection, "error", err)
	}
}

// enter says what this process has defined, and begins the first version.
func (s *Set) enter(name string, e *entry) (*entry, error) {
	newest := s.definitions[name][slices.Max(slices.Collect(maps.Keys(s.definitions[name])))]
	if e.Last > 0 && e.Newest.Revision >= newest.Revision {
		return e, nil
	}
	err := change(s.ctx, s.engine, name, func(w eventstore.Within, current *entry) error {
		erased, err := w.Destroyed(s.ctx)
		if err != nil {
			return err
		}
		e = current
		if newest.Revision > e.Newest.Revision {
			e.Newest = shapeOf(newest)
		}
		if e.Last == 0 {
			e.Live = e.begin(Live, false, erased).Number
		}
		return nil
	})
	return e, err
}

// leave ends following what is not to be followed any more.
func (s *Set) leave(name string, e *entry) {
	for v, sub := range s.follows {
		if v.Projection == name && !e.follows(v.Number, false) {
			ctx, cancel := context.WithTimeout(s.ctx, s.cfg.Lease)
			if err := sub.Close(ctx); err != nil {
				s.warn("a follower was not closed", v.String(), err)
			}
			cancel()
			delete(s.follows, v)
		}
	}
}

// look does what one version needs.
func (s *Set) look(name string, e *entry, v version) error {
	d := s.definitions[name][v.Shape.Revision]
	of := Version{name, v.Number}
	if d == nil || v.Phase == Dropping || e.Paused {
		return nil
	}
	if !s.defined[of] {
		if err := d.define(s.ctx, s.engine, of); err != nil {
			return err
		}
		s.defined[of] = true
	}
	if v.Attached {
		return s.closeGap(d, of)
	}
	if v.Shape.Inline && v.Phase != Building && v.Phase != Ready {
		switch err := s.attachNow(d, of); {
		case err == nil:
			s.hurry()
			return nil
		case !errors.Is(err, errBehind) && !errors.Is(err, errParked):
			return err
		}
	}
	if err := s.follow(d, of); err != nil {
		return err
	}
	if v.Phase == Building {
		return s.swapWhenReady(d.Category, of)
	}
	return nil
}
