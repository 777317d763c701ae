package state

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Factory gives out the stores that a program is configured with. It owns their drivers. It is safe for concurrent
// use.
type Factory struct {
	stores  map[string]*store
	drivers map[string]Driver
	options Options

	closeOnce sync.Once
	closed    chan struct{}
	closeErr  error
}

// A store is one configured store. Its engine is opened by the first use.
type store struct {
	cfg      StoreConfig
	driver   Driver
	factory  *Factory
	recorder *recorder

	opening chan struct{} // held by the goroutine that opens the engine
	opened  chan struct{} // closed when engine is set
	engine  Engine

	announce *Announce // nil: the engine announces nothing
}

// NewFactory returns a factory of the given stores on the given drivers, which it closes when it is closed. It does not
// connect to anything. A store whose backend has no driver, a store named twice, and stores whose keys could meet are
// errors that wrap ErrInvalid.
func NewFactory(stores []StoreConfig, drivers []Driver, o Options) (*Factory, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := o.Announce.check(); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if o.SlowOperation == 0 {
		o.SlowOperation = time.Second
	}
	f := &Factory{
		stores:  make(map[string]*store, len(stores)),
		drivers: make(map[string]Driver, len(drivers)),
		options: o,
		closed:  make(chan struct{}),
	}
	for _, d := range drivers {
		if _, ok := f.drivers[d.Backend()]; ok {
			return nil, fmt.Errorf("state: %w: two drivers for backend %q", ErrInvalid, d.Backend())
		}
		f.drivers[d.Backend()] = d
	}
	metrics, err := newMetrics(o.MeterProvider)
	if err != nil {
		return nil, fmt.Errorf("state: metrics: %w", err)
	}
	for _, cfg := range stores {
		if err := f.add(cfg, metrics); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
	}
	if err := checkPrefixes(f.Stores()); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	return f, nil
}

func (f *Factory) add(cfg StoreConfig, m *metrics) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	if _, ok := f.stores[cfg.Name]; ok {
		return fmt.Errorf("%w: store %q is configured twice", ErrInvalid, cfg.Name)
	}
	driver, ok := f.drivers[cfg.Backend]
	if !ok {
		return fmt.Errorf("%w: store %q: no driver for backend %q; there are: %s",
			ErrInvalid, cfg.Name, cfg.Backend, strings.Join(slices.Sorted(maps.Keys(f.drivers)), ", "))
	}
	f.stores[cfg.Name] = &store{
		cfg:      cfg,
		driver:   driver,
		factory:  f,
		recorder: newRecorder(m, cfg, f.options),
		opening:  make(chan struct{}, 1),
		opened:   make(chan struct{}),
	}
	return nil
}

// Open returns the named store as one that holds values of type T. The engine is opened by the first call for a name,
// however many there are at once; views after it cost nothing. A name that is not configured is ErrUnknownStore.
//
// Several views of one store may have different types. With T = jsontext.Value (or json.RawMessage) values pass through
// byte for byte, but for escapes in members' names on MySQL; an interface type in T reads numbers as float64, as Go's JSON does.
func Open[T any](ctx context.Context, f *Factory, name string) (*Store[T], error) {
	s, err := f.open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &Store[T]{store: s}, nil
}

func (f *Factory) open(ctx context.Context, name string) (*store, error) {
	s, err := f.lookup(name)
	if err != nil {
		return nil, err
	}
	select {
	case <-f.closed:
		return nil, fmt.Errorf("state: store %q: %w: the factory is closed", name, ErrUnavailable)
	default:
	}
	select {
	case <-s.opened:
		return s, nil
	default:
	}
	select {
	case <-s.opened:
		return s, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("state: open store %q: %w", name, context.Cause(ctx))
	case s.opening <- struct{}{}:
	}
	defer func() { <-s.opening }()
	select {
	case <-s.opened: // by another goroutine, before this one was let in
		return s, nil
	default:
	}
	if err := s.openEngine(ctx); err != nil {
		return nil, fmt.Errorf("state: open store %q: %w", name, err)
	}
	close(s.opened)
	return s, nil
}

func (f *Factory) lookup(name string) (*store, error) {
	s, ok := f.stores[name]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(f.stores)), ", ")
		return nil, fmt.Errorf("state: %w %q; there are: %s", ErrUnknownStore, name, known)
	}
	return s, nil
}

// Has reports whether a store of that name is configured.
func (f *Factory) Has(name string) bool {
	_, ok := f.stores[name]
	return ok
}

// Backend returns the name of the backend that keeps the named store, or ErrUnknownStore.
func (f *Factory) Backend(name string) (string, error) {
	s, err := f.lookup(name)
	if err != nil {
		return "", err
	}
	return s.cfg.Backend, nil
}

// Stores returns the configuration of every store, defaults filled in, sorted by name.
func (f *Factory) Stores() []StoreConfig {
	configs := make([]StoreConfig, 0, len(f.stores))
	for _, s := range f.stores {
		cfg := s.cfg
		cfg.Indexes = slices.Clone(cfg.Indexes)
		configs = append(configs, cfg)
	}
	slices.SortFunc(configs, func(a, b StoreConfig) int { return strings.Compare(a.Name, b.Name) })
	return configs
}

// Len counts the keys of the named store. It may take time in proportion to the store.
func (f *Factory) Len(ctx context.Context, name string) (int64, error) {
	s, err := f.open(ctx, name)
	if err != nil {
		return 0, err
	}
	return s.len(ctx)
}

// Ready reports nil when every backend that has a store answers, and otherwise the joined errors of those that do not,
// each with its backend's name.
func (f *Factory) Ready(ctx context.Context) error {
	var errs []error
	byBackend := f.ReadyBackends(ctx)
	for _, backend := range slices.Sorted(maps.Keys(byBackend)) {
		if err := byBackend[backend]; err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", backend, err))
		}
	}
	return errors.Join(errs...)
}

// ReadyBackends asks every backend that has a store, all at once, whether it answers. The value is nil for one that
// does.
func (f *Factory) ReadyBackends(ctx context.Context) map[string]error {
	used := make(map[string]Driver)
	for _, s := range f.stores {
		used[s.cfg.Backend] = s.driver
	}
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		result = make(map[string]error, len(used))
	)
	for backend, driver := range used {
		wg.Go(func() {
			err := driver.Ready(ctx)
			mu.Lock()
			defer mu.Unlock()
			result[backend] = err
		})
	}
	wg.Wait()
	return result
}

// Close closes the drivers, once. Operations under way and later ones fail.
func (f *Factory) Close() error {
	f.closeOnce.Do(func() {
		close(f.closed)
		var errs []error
		for _, d := range f.drivers {
			if s, settles := d.(Settler); settles {
				s.Settle()
			}
		}
		for _, backend := range slices.Sorted(maps.Keys(f.drivers)) {
			if err := f.drivers[backend].Close(); err != nil {
				errs = append(errs, fmt.Errorf("state: close %s: %w", backend, err))
			}
		}
		f.closeErr = errors.Join(errs...)
	})
	return f.closeErr
}
