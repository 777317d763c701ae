package memorybus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Redeliver puts a message into one queue, and waits for room there as Publish does.
func (d *Driver) Redeliver(ctx context.Context, queue string, m *bus.Message) error {
	if queue == DeadLetterStore {
		return fmt.Errorf("%w: %q keeps dead letters; name the queue of a subscription", bus.ErrInvalid, queue)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	d.mu.RLock()
	q, ended := d.queues[queue], d.ended
	d.mu.RUnlock()
	switch {
	case ended:
		return bus.ErrClosed
	case q == nil:
		return fmt.Errorf("%w: there is no queue %q", bus.ErrUnroutable, queue)
	}
	if err := q.reserve(ctx); err != nil {
		return err
	}
	q.add(clone(m)) //nolint:contextcheck // there is room: it does not wait
	return d.had()
}

// Letters opens the dead-letter store. What is read stays where it is until it is acknowledged, so that the store's
// limits hold meanwhile.
func (d *Driver) Letters(ctx context.Context) (bus.Letters, error) {
	select {
	case d.reading <- struct{}{}:
	case <-d.closed:
		return nil, bus.ErrClosed
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: another reader is at work on the dead letters: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	d.mu.RLock()
	store := d.queues[DeadLetterStore]
	d.mu.RUnlock()
	if store == nil {
		<-d.reading
		return nil, fmt.Errorf("%w: the queue %q was deleted", bus.ErrUnavailable, DeadLetterStore)
	}
	store.mu.Lock()
	entries := slices.Clone(store.ready)
	store.mu.Unlock()
	slices.SortFunc(entries, func(a, b *entry) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	return &letters{
		store: store, entries: entries, count: int64(len(entries)),
		leave: sync.OnceFunc(func() { <-d.reading }),
	}, nil
}

// letters is one reading of the store. Dropped by a limit meanwhile, or taken by a consumer, a letter is passed over.
type letters struct {
	store   *queue
	entries []*entry // still to be read, the oldest first
	count   int64
	leave   func()
}

func (l *letters) Count() int64 { return l.count }

func (l *letters) Next(ctx context.Context) (bus.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	for len(l.entries) > 0 {
		e := l.entries[0]
		l.entries = l.entries[1:]
		if l.store.holds(e) {
			return &letter{store: l.store, entry: e, message: clone(e.message)}, nil
		}
	}
	return nil, io.EOF
}

func (l *letters) Close(context.Context) error {
	l.leave()
	return nil
}

// holds reports whether an entry is still in the queue, undelivered.
func (q *queue) holds(e *entry) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.ended && e.readyPos >= 0
}

// letter is a dead letter in a reader's hands, and in the store all the while.
type letter struct {
	store   *queue
	entry   *entry
	message *bus.Message
	settled atomic.Bool
}

func (l *letter) Message() *bus.Message { return l.message }
func (l *letter) Attempt() int          { return l.entry.attempt }

func (l *letter) Ack() error {
	if l.settled.Swap(true) {
		return nil
	}
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if !l.store.ended && l.entry.readyPos >= 0 {
		l.store.take(l.entry)
	}
	return nil
}

func (l *letter) Requeue() error {
	l.settled.Store(true)
	return nil
}

func (l *letter) Retry(context.Context, time.Duration) error {
	return fmt.Errorf("a dead letter is not retried in its store; redeliver it to its queue: %w", errors.ErrUnsupported)
}
