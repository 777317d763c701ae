package meshtest

import (
	"context"
	"sync"

	"github.com/bannou-mesh/bannou/pkg/mesh"
)

// A Feed is a mesh.Feed in memory, for tests: every watcher has been called when Announce returns. The zero value is
// ready to use.
type Feed struct {
	mu       sync.RWMutex // held for reading while watchers are called, so that stop waits for them
	watchers map[*func(mesh.Change)]struct{}
	failed   error
}

// Fail makes Announce and Watch return err until it is called with nil.
func (f *Feed) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = err
}

// Announce implements mesh.Feed.
func (f *Feed) Announce(ctx context.Context, c mesh.Change) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if f.failed != nil {
		return f.failed
	}
	for fn := range f.watchers {
		(*fn)(c)
	}
	return nil
}

// Watch implements mesh.Feed.
func (f *Feed) Watch(ctx context.Context, fn func(mesh.Change)) (stop func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if f.failed != nil {
		return nil, f.failed
	}
	if f.watchers == nil {
		f.watchers = map[*func(mesh.Change)]struct{}{}
	}
	f.watchers[&fn] = struct{}{}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, &fn)
	}, nil
}

// Watchers returns how many there are.
func (f *Feed) Watchers() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return len(f.watchers)
}
