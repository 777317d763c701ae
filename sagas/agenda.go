package sagas

import (
	"context"
	"crypto/rand"
	"errors"
	"hash/crc32"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/state/eventstore"
)

// An agenda has what is due done: timeouts, calls, and undos that were not confirmed. Its partitions are shared by the processes that run the saga; each
// is a desk's, which has a fenced lease of it.
type agenda struct {
	engine   *Engine
	family   *family
	name     string // of its marks
	consumer string
	news     []chan struct{} // by partition

	mu        sync.Mutex
	held      int
	share     int // how many partitions this process may hold
	summaries map[int]summary
}

// A summary is what a desk knows of its open instances.
type summary struct {
	open, parked int64
	oldest       time.Time // of those that are not parked; zero: there is none
}

func newAgenda(e *Engine, f *family) *agenda {
	a := &agenda{engine: e, family: f, name: f.category() + ".agenda", consumer: rand.Text(), summaries: map[int]summary{}}
	for range e.cfg.Partitions {
		a.news = append(a.news, make(chan struct{}, 1))
	}
	return a
}

// partOf is the partition of an instance. Released ones never change.
func (a *agenda) partOf(key string) int {
	return int(crc32.ChecksumIEEE([]byte(key)) % uint32(len(a.news)))
}

// wake has the desks look now.
func (a *agenda) wake() {
	for _, news := range a.news {
		select {
		case news <- struct{}{}:
		default:
		}
	}
}

// run attends to the partitions until ctx ends.
func (a *agenda) run(ctx context.Context) {
	var parts sync.WaitGroup
	for part := range a.news {
		parts.Go(func() { a.attend(ctx, part) })
	}
	parts.Wait()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.engine.cfg.Lease)
	defer cancel()
	if err := a.marks().Retire(ending, a.name, a.consumer); err != nil {
		a.warn(ending, "a consumer cannot say that it has ended; others wait for its lease to end", err)
	}
}

func (a *agenda) marks() eventstore.Marks { return a.engine.cfg.Store.Engine() }

// attend has a desk for a partition whenever it can be had.
func (a *agenda) attend(ctx context.Context, part int) {
	lease, poll := a.engine.cfg.Lease, a.engine.cfg.Poll
	for ctx.Err() == nil {
		if err := a.reckon(ctx); err != nil {
			a.warn(ctx, "a consumer cannot enlist, and will try again", err)
		} else if a.take() {
			a.claim(ctx, part)
			a.leave(part)
		}
		wait(ctx, min(lease/3, 4*poll))
	}
}

// reckon enlists, and reckons the share of this process.
func (a *agenda) reckon(ctx context.Context) error {
	consumers, err := a.marks().Enlist(ctx, a.name, a.consumer, a.engine.cfg.Lease)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.share = (len(a.news) + consumers - 1) / max(consumers, 1)
	return nil
}

// take counts one more partition, unless that is more than the share.
func (a *agenda) take() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.held >= a.share {
		return false
	}
	a.held++
	return true
}

func (a *agenda) leave(part int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held--
	delete(a.summaries, part)
}

// tooMany reports whether this process has more than its share.
func (a *agenda) tooMany() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held > a.share
}

func (a *agenda) summarize(part int, s summary) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.summaries[part] = s
}

// summary is of all partitions that this process has.
func (a *agenda) summary() (all summary) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.summaries {
		all.open += s.open
		all.parked += s.parked
		if all.oldest.IsZero() || (!s.oldest.IsZero() && s.oldest.Before(all.oldest)) {
			all.oldest = s.oldest
		}
	}
	return all
}

// claim has a desk work at a partition, where no other process does, until it is lost or to be left.
func (a *agenda) claim(ctx context.Context, part int) {
	asked := time.Now()
	lease, claimed, err := a.marks().Claim(ctx, eventstore.Claim{
		Name: a.name, Part: part, Parts: len(a.news), Consumer: a.consumer, Lives: a.engine.cfg.Lease,
	})
	if err != nil {
		a.warn(ctx, "a partition cannot be claimed, and will be tried again", err)
		return
	}
	if !claimed {
		return
	}
	d := newDesk(ctx, a, lease, asked)
	if err := d.run(); err != nil { //nolint:contextcheck // it has a context of its own, of ctx, which ends with the lease
		a.warn(ctx, "a partition was lost", err)
	}
}

func (a *agenda) warn(ctx context.Context, what string, err error) {
	if ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		a.engine.cfg.Logger.WarnContext(ctx, what, "saga", a.family.name, "subscription", a.name, "error", err)
	}
}

// wait returns after a time, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
