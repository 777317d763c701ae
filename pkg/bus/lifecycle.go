package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Run reads the queues of the static handlers, and those of plain Watermill handlers on the router, until ctx ends or
// Close is called; then it lets the handlers finish for up to CloseTimeout, and returns nil. A broker that is away is
// waited for in the background, however long it takes: Ready tells. Run works once.
func (b *Bus) Run(ctx context.Context) error {
	b.mu.Lock()
	if b.closing() {
		b.mu.Unlock()
		return fmt.Errorf("cannot run: %w", ErrClosed)
	}
	if b.started {
		b.mu.Unlock()
		return errors.New("the bus runs already")
	}
	b.started = true
	sources := make([]*source, 0, len(b.static))
	for s := range b.static {
		sources = append(sources, s)
	}
	go b.route()
	b.mu.Unlock()

	var attempts sync.WaitGroup
	for _, s := range sources {
		attempts.Go(s.start)
	}
	attempts.Wait()
	select {
	case <-b.router.Running():
		close(b.running)
	case <-b.routed:
	}
	select {
	case <-ctx.Done():
	case <-b.ending:
	case <-b.routed:
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.cfg.CloseTimeout)
	defer cancel()
	return errors.Join(b.Close(closing), b.failedRouting())
}

func (b *Bus) route() {
	b.routeErr = b.router.Run(b.routing)
	close(b.routed)
}

// failedRouting is why the router could not run: the subscriber of a plain Watermill handler refused.
func (b *Bus) failedRouting() error {
	select {
	case <-b.routed:
		return b.routeErr
	default:
		return nil
	}
}

// Running is closed when Run has declared every static handler's queue, or, the broker being away, has begun to wait
// for it. What is published from then on (with the broker there) is handled.
func (b *Bus) Running() <-chan struct{} { return b.running }

// Close ends the bus. No more deliveries are taken; handlers at work may finish, and publish, until ctx ends; what they
// were at work on then goes back to its queue, and Close says so in an error. After that, publishing is ErrClosed.
// Closing again waits for the first Close and returns what it returned. The driver is not closed.
func (b *Bus) Close(ctx context.Context) error {
	b.mu.Lock()
	first := !b.closing()
	if first {
		close(b.ending)
	}
	b.mu.Unlock()
	if first {
		b.closeErr = b.close(ctx)
		close(b.closed)
	}
	select {
	case <-b.closed:
		return b.closeErr
	case <-ctx.Done():
		return fmt.Errorf("the bus is still closing: %w", context.Cause(ctx))
	}
}

func (b *Bus) close(ctx context.Context) error {
	b.mu.Lock()
	sources := make([]*source, 0, len(b.sources))
	for s := range b.sources {
		sources = append(sources, s)
	}
	started := b.started
	b.mu.Unlock()

	failures := make([]error, len(sources))
	var ends sync.WaitGroup
	for i, s := range sources {
		ends.Go(func() { failures[i] = s.end(ctx) })
	}
	ends.Wait()
	if started {
		b.closeRouter(ctx)
	}
	b.stopRouting()
	b.workers.close()
	return errors.Join(failures...)
}

// closeRouter waits for the router until ctx ends; what is left of it then, handlers that do not heed their contexts,
// ends when they do.
func (b *Bus) closeRouter(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-b.router.Running():
		case <-b.routed:
			return // it never came to run
		}
		if err := b.router.Close(); err != nil {
			b.log.Warn("handlers did not end in time", "error", err)
		}
		<-b.routed
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
}

// keepAlive is the name of a handler that never receives anything: a router ends with its last handler, and the bus's
// must not, for handlers may be added later.
const keepAlive = "bannou.keep-alive"

type idle struct {
	once  sync.Once
	ended chan struct{}
}

func (i *idle) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		select {
		case <-ctx.Done():
		case <-i.ended:
		}
	}()
	return out, nil
}

func (i *idle) Close() error {
	i.once.Do(func() { close(i.ended) })
	return nil
}
