package redisbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/pkg/bus/internal/routes"
)

// maxReading is how many connections may wait for messages at a time: one for each subscription with a group, and one
// for each two hundred streams that the others read.
const maxReading = 4096

// Driver is a connection to Redis as a broker. It is safe for concurrent use.
type Driver struct {
	cfg        Config
	log        *slog.Logger
	run        scripts
	id         string        // of this driver among all on this Redis
	numbers    atomic.Uint64 // of its consumers
	client     *redis.Client // for commands that answer at once
	reading    *redis.Client // for commands that wait for messages
	publishing *pipe
	settling   *pipe
	registry   *registry
	clock      *clock
	shared     *shared
	drops      drops
	single     atomic.Bool         // the server is known to be in no cluster
	warned     map[string]struct{} // streams that the upkeep has complained of; its own
	daprs      sync.Map            // topics that Dapr's apps use too

	closing    context.Context //nolint:containedctx // a life of its own, ended by Close
	endClosing context.CancelFunc
	background sync.WaitGroup
	closeOnce  sync.Once
	closeErr   error

	mu        sync.Mutex
	consumers map[consumer]struct{}
	curious   routes.Tree[consumer] // those with a pattern, who are to hear of new topics
}

// consumer is what the driver needs of both kinds.
type consumer interface {
	bus.Consumer
	queueName() string
	patterns() []string                                     // of the default exchange, those that new topics may match
	topic(ctx context.Context, topic string, news position) // a topic is new
	abandon(ctx context.Context) int                        // gives back what is not settled
	end()                                                   // stops without giving back: the queue is gone
}

var _ bus.Driver = (*Driver)(nil)

// New makes a driver. It does not fail because Redis is away. bus.ErrInvalid: the configuration cannot work.
func New(cfg Config) (*Driver, error) {
	cfg = cfg.withDefaults()
	options, err := cfg.options()
	if err != nil {
		return nil, err
	}
	d := &Driver{
		cfg: cfg, log: cfg.Logger, run: newScripts(), id: uuid.NewString(),
		client: connect(options, 64), reading: connect(options, maxReading),
		drops: newDrops(cfg), consumers: make(map[consumer]struct{}), warned: make(map[string]struct{}),
	}
	d.closing, d.endClosing = context.WithCancel(context.Background())
	d.publishing, d.settling = newPipe(d.client, cfg, cfg.WaitReplicas), newPipe(d.client, cfg, 0)
	d.registry = newRegistry(d.client, d.run)
	d.clock = newClock(d)
	d.shared = newShared(d)
	d.background.Go(d.clock.tick)
	d.background.Go(d.upkeep)
	d.background.Go(d.heartbeat)
	d.background.Go(d.heartbeatAlone)
	return d, nil
}

// Backend is "redis".
func (d *Driver) Backend() string { return "redis" }

// Ready asks Redis. bus.ErrInvalid: it is a Redis Cluster.
func (d *Driver) Ready(ctx context.Context) error {
	if d.closing.Err() != nil {
		return bus.ErrClosed
	}
	err := d.refuseCluster(ctx)
	if err == nil {
		err = d.client.Ping(ctx).Err()
	}
	if err != nil && !errors.Is(err, bus.ErrInvalid) {
		err = fmt.Errorf("%w: %w", bus.ErrUnavailable, err)
	}
	return err
}

// Subscribe declares the queue, or joins it where it exists. bus.ErrInvalid: it exists with other properties, or one of
// the two is exclusive.
func (d *Driver) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	if d.closing.Err() != nil {
		return nil, bus.ErrClosed
	}
	if q.Name == "" || q.Prefetch < 1 {
		return nil, fmt.Errorf("%w: a queue needs a name and a prefetch of at least 1", bus.ErrInvalid)
	}
	q.Bindings = slices.Clone(q.Bindings)
	for i, b := range q.Bindings {
		q.Bindings[i].Exchange = d.exchange(b.Exchange)
		if q.Bindings[i].Exchange == d.cfg.Exchange && !isPattern(b.Pattern) && !d.isTopic(b.Pattern) {
			return nil, d.noTopic(b.Pattern)
		}
	}
	reader := d.id + "." + strconv.FormatUint(d.numbers.Add(1), 10)
	var c consumer
	err := d.patiently(ctx, func() (err error) {
		if q.Exclusive && !q.Durable {
			c, err = d.subscribeAlone(ctx, q, reader)
		} else {
			c, err = d.subscribeGroup(ctx, q, reader)
		}
		return err
	})
	if err != nil {
		if ctx.Err() == nil { // else its name is taken for a dead reader's in a while
			_, _ = d.registry.leave(ctx, q.Name, true, reader)
		}
		return nil, fmt.Errorf("subscribe to queue %q: %w", q.Name, err)
	}
	return c, nil
}

// add keeps a consumer until it ends. false: the driver is closed.
func (d *Driver) add(c consumer) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing.Err() != nil {
		return false
	}
	d.consumers[c] = struct{}{}
	for _, p := range c.patterns() {
		d.curious.Add(p, c)
	}
	return true
}

func (d *Driver) forget(c consumer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.consumers, c)
	for _, p := range c.patterns() {
		d.curious.Remove(p, c)
	}
}

// whoWants are the consumers with a pattern that a topic matches.
func (d *Driver) whoWants(topic string) []consumer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.curious.Match(topic)
}

func (d *Driver) all() []consumer {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.consumers))
}

// DeleteQueue removes a queue with what is in it, and ends its consumers, those of other nodes when they next look.
func (d *Driver) DeleteQueue(ctx context.Context, name string) error {
	err := d.patiently(ctx, func() error { return d.deleteQueue(ctx, name) })
	if err != nil {
		return fmt.Errorf("delete queue %q: %w", name, err)
	}
	return nil
}

func (d *Driver) deleteQueue(ctx context.Context, name string) error {
	queues, err := d.registry.known(ctx)
	if err != nil {
		return err
	}
	if err := d.registry.remove(ctx, name); err != nil {
		return err
	}
	for _, c := range d.all() {
		if c.queueName() == name {
			c.end()
		}
	}
	return d.clear(ctx, name, queues[name])
}

// clear removes what a queue had.
func (d *Driver) clear(ctx context.Context, name string, q record) error {
	streams, _, err := d.streamsOf(ctx, q)
	if err != nil {
		return err
	}
	pipeline := d.client.Pipeline()
	for _, s := range streams {
		pipeline.XGroupDestroy(ctx, s.key, name)
	}
	pipeline.Del(ctx, ownKey(name), delayedKey(name), movedKey(name), positionsKey(name), expiredKey(name))
	cmds, _ := pipeline.Exec(ctx) // each has its own error
	for _, c := range cmds {
		if err := c.Err(); err != nil && !redis.HasErrorPrefix(err, "The XGROUP subcommand requires the key to exist") && !noStream(err) {
			return err
		}
	}
	return nil
}

// Close ends consumers, gives back what is not settled when ctx ends, and closes this driver's connections.
func (d *Driver) Close(ctx context.Context) error {
	d.closeOnce.Do(func() { d.closeErr = d.close(ctx) })
	return d.closeErr
}

func (d *Driver) close(ctx context.Context) error {
	d.mu.Lock()
	d.endClosing()
	d.mu.Unlock()
	var errs []error
	var ending sync.WaitGroup
	for _, c := range d.all() {
		ending.Go(func() { _ = c.Close(ctx) })
	}
	ending.Wait()
	d.background.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
	defer cancel()
	unsettled := 0
	for _, c := range d.all() {
		unsettled += c.abandon(ctx)
	}
	if unsettled > 0 {
		errs = append(errs, fmt.Errorf("%d deliveries were not settled; they go back to their queues", unsettled))
	}
	d.publishing.close(last)
	d.settling.close(last)
	d.shared.close() //nolint:contextcheck // what is left is this driver's alone
	for _, client := range []io.Closer{d.client, d.reading} {
		errs = append(errs, client.Close())
	}
	return errors.Join(errs...)
}
