package memorybus

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/internal/routes"
)

// Driver is a broker in memory. Several buses on one Driver are several nodes on one broker. It is safe for concurrent
// use.
type Driver struct {
	cfg     Config
	log     *slog.Logger
	drops   *drops
	closed  chan struct{}
	reading chan struct{} // has one element while the dead letters are read

	background sync.WaitGroup // timers' work

	mu        sync.RWMutex
	ended     bool
	exchanges map[string]*routes.Tree[*queue]
	queues    map[string]*queue
}

var _ bus.Driver = (*Driver)(nil)

// New makes a broker that has one queue, the one that keeps dead letters. Close it after the buses that use it.
func New(cfg Config) *Driver {
	cfg = cfg.withDefaults()
	d := &Driver{
		cfg:       cfg,
		log:       cfg.Logger,
		drops:     newDrops(cfg),
		closed:    make(chan struct{}),
		reading:   make(chan struct{}, 1),
		exchanges: make(map[string]*routes.Tree[*queue]),
		queues:    make(map[string]*queue),
	}
	store := newQueue(d, bus.Queue{
		Name:     DeadLetterStore,
		Durable:  true,
		Bindings: []bus.Binding{{Exchange: cfg.DeadLetterExchange, Pattern: bus.DeadLetterKey + "#"}},
	})
	store.keep = &keeping{messages: cfg.MaxDeadLetters, age: cfg.MaxDeadLetterAge}
	d.declare(store)
	return d
}

// Backend is "memory".
func (d *Driver) Backend() string { return "memory" }

// Ready is nil until the driver is closed.
func (d *Driver) Ready(context.Context) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.ended {
		return bus.ErrClosed
	}
	return nil
}

// Publish returns when every queue bound has the message. When one of them is full it waits for room; if its context
// ends before there is, none has it.
func (d *Driver) Publish(ctx context.Context, m *bus.Message) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	queues, err := d.route(m)
	if err != nil {
		return err
	}
	if len(queues) == 0 {
		if m.Mandatory {
			return fmt.Errorf("%w: %q", bus.ErrUnroutable, m.RoutingKey)
		}
		return nil
	}
	if err := reserve(ctx, queues); err != nil {
		return err
	}
	// Each has its own: what a reader does to it, another queue's does not see.
	last := len(queues) - 1
	for _, q := range queues[:last] {
		q.add(clone(m)) //nolint:contextcheck // it does not wait
	}
	queues[last].add(m) //nolint:contextcheck // as above
	return d.had()
}

// had confirms what was put into queues, unless the broker was closed meanwhile, perhaps before they had it.
func (d *Driver) had() error {
	select {
	case <-d.closed:
		return fmt.Errorf("%w: %w", bus.ErrNotConfirmed, bus.ErrClosed)
	default:
		return nil
	}
}

func (d *Driver) route(m *bus.Message) ([]*queue, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.ended {
		return nil, bus.ErrClosed
	}
	exchange := d.exchanges[d.exchange(m.Exchange)]
	if exchange == nil {
		return nil, nil
	}
	return exchange.Match(m.RoutingKey), nil
}

func (d *Driver) exchange(name string) string {
	if name == "" {
		return d.cfg.Exchange
	}
	return name
}

// reserve takes room for one message in every queue, or in none.
func reserve(ctx context.Context, queues []*queue) error {
	for i, q := range queues {
		if err := q.reserve(ctx); err != nil {
			for _, taken := range queues[:i] {
				taken.free()
			}
			return err
		}
	}
	return nil
}

// Subscribe declares the queue, or joins it where it exists. bus.ErrInvalid: it exists with other properties, or one of
// the two is exclusive.
func (d *Driver) Subscribe(ctx context.Context, spec bus.Queue) (bus.Consumer, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	if spec.Name == "" || spec.Prefetch < 1 {
		return nil, fmt.Errorf("%w: a queue needs a name and a prefetch of at least 1", bus.ErrInvalid)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return nil, bus.ErrClosed
	}
	q := d.queues[spec.Name]
	if q == nil {
		q = newQueue(d, spec)
		d.declare(q)
		return q.consume(spec), nil
	}
	if err := q.admits(spec); err != nil {
		return nil, err
	}
	d.bind(q, spec.Bindings)
	if q.expiry != nil { // it is read again
		q.expiry.Stop()
	}
	return q.consume(spec), nil
}

// declare adds a new queue; d.mu is held, except in New.
func (d *Driver) declare(q *queue) {
	d.queues[q.name] = q
	bindings := q.bindings
	q.bindings = nil
	d.bind(q, bindings)
}

func (d *Driver) bind(q *queue, bindings []bus.Binding) {
	for _, b := range bindings {
		b.Exchange = d.exchange(b.Exchange)
		if slices.Contains(q.bindings, b) {
			continue
		}
		q.bindings = append(q.bindings, b)
		if d.exchanges[b.Exchange] == nil {
			d.exchanges[b.Exchange] = &routes.Tree[*queue]{}
		}
		d.exchanges[b.Exchange].Add(b.Pattern, q)
	}
}

// undeclare removes a queue; d.mu is held.
func (d *Driver) undeclare(q *queue) {
	for _, b := range q.bindings {
		d.exchanges[b.Exchange].Remove(b.Pattern, q)
	}
	delete(d.queues, q.name)
	if q.expiry != nil {
		q.expiry.Stop()
	}
	q.end()
}

// release removes a queue that is not durable once its last consumer has gone, and one that expires some time later.
func (d *Driver) release(q *queue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended || d.queues[q.name] != q || q.consumerCount() > 0 {
		return
	}
	switch {
	case !q.durable:
		d.undeclare(q)
	case q.expires > 0 && q.expiry == nil:
		q.expiry = time.AfterFunc(q.expires, func() { d.expired(q) })
	case q.expires > 0:
		q.expiry.Reset(q.expires)
	}
}

// expired removes a queue that nobody has read for long enough.
func (d *Driver) expired(q *queue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ended && d.queues[q.name] == q && q.consumerCount() == 0 {
		d.undeclare(q)
	}
}

// DeleteQueue removes a queue with what is in it.
func (d *Driver) DeleteQueue(_ context.Context, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return bus.ErrClosed
	}
	if q := d.queues[name]; q != nil {
		d.undeclare(q)
	}
	return nil
}

// Queues lists all queues by name.
func (d *Driver) Queues(context.Context) ([]bus.QueueInfo, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.ended {
		return nil, bus.ErrClosed
	}
	list := make([]bus.QueueInfo, 0, len(d.queues))
	for _, q := range d.queues {
		list = append(list, q.info())
	}
	slices.SortFunc(list, func(a, b bus.QueueInfo) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Close ends the broker; what it holds is gone.
func (d *Driver) Close(context.Context) error {
	d.mu.Lock()
	if d.ended {
		d.mu.Unlock()
		return nil
	}
	d.ended = true
	close(d.closed)
	for _, q := range d.queues {
		q.end()
	}
	d.mu.Unlock()
	d.background.Wait()
	return nil
}

// begin lets a timer's work begin, unless the broker has ended.
func (d *Driver) begin() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.ended {
		return false
	}
	d.background.Add(1)
	return true
}
