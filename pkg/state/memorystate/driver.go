package memorystate

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/bannou-mesh/bannou/pkg/state"
)

// Driver keeps stores in memory. A store opened twice is the same store. It is safe for concurrent use and has no
// goroutines.
type Driver struct {
	mu      sync.Mutex
	engines map[string]*engine
	inboxes map[string]*inbox
	closed  atomic.Bool
	tags    tags
}

var _ state.Driver = (*Driver)(nil)

// New returns a driver without stores.
func New() *Driver {
	return &Driver{engines: make(map[string]*engine), inboxes: make(map[string]*inbox), tags: tags{run: rand.Text()[:12]}}
}

// Backend returns "memory".
func (d *Driver) Backend() string { return "memory" }

// Open returns the store of that name, empty if it is new.
func (d *Driver) Open(ctx context.Context, cfg state.StoreConfig) (state.Engine, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.closed.Load() {
		return nil, errClosed()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.engines[cfg.Name]
	if !ok {
		e = &engine{driver: d, store: cfg.Name, items: make(map[string]*item)}
		d.engines[cfg.Name] = e
	}
	return e, nil
}

// Ready reports nil until Close.
func (d *Driver) Ready(ctx context.Context) error {
	if d.closed.Load() {
		return errClosed()
	}
	return ctx.Err()
}

// Close ends the driver: operations after it fail with state.ErrUnavailable.
func (d *Driver) Close() error {
	d.closed.Store(true)
	return nil
}

func errClosed() error {
	return fmt.Errorf("%w: the memory driver is closed", state.ErrUnavailable)
}

// tags makes ETags: a number that never repeats in this process, and a mark of the process, so that an ETag which a
// client has kept over a restart matches nothing.
type tags struct {
	run  string
	last atomic.Uint64
}

func (t *tags) next() string { return strconv.FormatUint(t.last.Add(1), 36) + "-" + t.run }
