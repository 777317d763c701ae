package sqlstate

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
)

var errClosed = fmt.Errorf("%w: the driver is closed", state.ErrUnavailable)

// grace is how long Close waits for transactions under way before it ends them.
const grace = 5 * time.Second

// Workers own the goroutines of a driver's gatherings. They come when callers have gathered, and end when none wait.
type Workers struct {
	ctx    context.Context //nolint:containedctx // ends the transactions of those that do not end by themselves
	cancel context.CancelFunc

	mu      sync.Mutex
	ended   bool
	running sync.WaitGroup
}

// NewWorkers returns owners of no goroutine yet.
func NewWorkers() *Workers {
	w := &Workers{}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// start runs work, unless the driver is closed.
func (w *Workers) start(work func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return false
	}
	w.running.Go(work)
	return true
}

func (w *Workers) closed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended
}

// Close has those refused who wait, and returns when the transactions under way have ended: by themselves, or after five
// seconds by force.
func (w *Workers) Close() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	force := time.AfterFunc(grace, w.cancel)
	defer force.Stop()
	w.running.Wait()
	w.cancel()
}
