package state

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state"
	"github.com/bannou-mesh/bannou/services/problem"
)

const (
	// countWait is how long a caller waits for counts.
	countWait = time.Second
	// countTimeout is how long one count may take, with nobody waiting for most of it.
	countTimeout = time.Minute
	// countRest is for how many times as long as it took a count is used again, so that counting takes at most a tenth of a
	// store's time however often it is asked for. So is the news that it takes longer than countTimeout.
	countRest = 10
	// awayRest is for how long a backend that failed otherwise is not asked again.
	awayRest = time.Second
	// countsAtOnce is how many stores of one backend are counted at once.
	countsAtOnce = 2
)

// counts knows how many keys stores have. One count of a store is under way at a time, in a goroutine that ends with close,
// and all who ask meanwhile share it.
type counts struct {
	factory *state.Factory
	wait    time.Duration

	life   context.Context //nolint:containedctx // of the counts under way, ended by close
	end    context.CancelFunc
	active sync.WaitGroup

	mu     sync.Mutex
	closed bool
	stores map[string]*counted
	slots  map[string]chan struct{} // by backend
}

// counted is what is known of one store.
type counted struct {
	count
	rest    time.Time     // until when it is good enough
	pending chan struct{} // closed when the count under way has ended, nil when none is
}

// A count is the outcome of counting a store.
type count struct {
	keys int64
	at   time.Time // when keys were counted; zero: never
	err  error     // why there is none, or none that is newer
}

func newCounts(f *state.Factory, wait time.Duration) *counts {
	c := &counts{factory: f, wait: wait, stores: map[string]*counted{}, slots: map[string]chan struct{}{}}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// close ends the counts under way, and waits for them.
func (c *counts) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.active.Wait()
}

// of counts the stores, all at once. It returns after c.wait, or when ctx ends, with what is known by then.
func (c *counts) of(ctx context.Context, names []string) []count {
	ctx, cancel := context.WithTimeout(ctx, c.wait)
	defer cancel()
	pending := make([]<-chan struct{}, len(names))
	for i, name := range names {
		pending[i] = c.begin(name) //nolint:contextcheck // the count is for all who ask, and outlives each of them
	}
	known := make([]count, len(names))
	for i, name := range names {
		if pending[i] != nil {
			select {
			case <-pending[i]:
			case <-ctx.Done():
			}
		}
		known[i] = c.known(name, ctx.Err() != nil)
	}
	return known
}

// begin has a store counted, if no count is under way and the last one is not good enough, and returns a channel that is
// closed when it has been, nil when there is nothing to wait for.
func (c *counts) begin(name string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stores[name]
	if s == nil {
		s = &counted{}
		c.stores[name] = s
	}
	switch {
	case s.pending != nil:
		return s.pending
	case c.closed, time.Now().Before(s.rest):
		return nil
	}
	pending := make(chan struct{})
	s.pending = pending
	slot := c.slot(name)
	c.active.Go(func() {
		ctx, cancel := context.WithTimeout(c.life, countTimeout)
		defer cancel()
		begin, keys, err := c.count(ctx, name, slot)
		c.mu.Lock()
		defer c.mu.Unlock()
		s.pending, s.err = nil, err
		s.rest = time.Now().Add(countRest * time.Since(begin))
		switch {
		case err == nil:
			s.keys, s.at = keys, begin
		case ctx.Err() == nil:
			s.rest = time.Now().Add(awayRest)
		}
		close(pending)
	})
	return pending
}

// slot is where counts of the store's backend wait for each other.
func (c *counts) slot(name string) chan struct{} {
	backend, _ := c.factory.Backend(name) // the store is one of the factory's
	if c.slots[backend] == nil {
		c.slots[backend] = make(chan struct{}, countsAtOnce)
	}
	return c.slots[backend]
}

// count counts a store when its turn has come; begin is when it did. A replica is asked where there is one.
func (c *counts) count(ctx context.Context, name string, slot chan struct{}) (begin time.Time, keys int64, err error) {
	select {
	case slot <- struct{}{}:
		defer func() { <-slot }()
	case <-ctx.Done():
		return time.Now(), 0, context.Cause(ctx)
	}
	begin = time.Now()
	store, err := state.Open[json.RawMessage](ctx, c.factory, name)
	if err != nil {
		return begin, 0, err
	}
	keys, err = store.Eventual().Len(ctx)
	return begin, keys, err
}

// known is what is known of a store, for a caller whose patience has ended or not.
func (c *counts) known(name string, ended bool) count {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.stores[name].count
	if ended && c.stores[name].pending != nil && known.err == nil {
		known.err = problem.New(problem.Timeout, "the store is still being counted; ask again for a newer count")
	}
	return known
}
