package rabbitbus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Driver is a RabbitMQ broker or cluster. It is safe for concurrent use.
type Driver struct {
	cfg        *Config
	topology   *topology
	delays     *delays
	carriers   *carriers
	desks      *desks
	publishing *link
	consuming  *link
	publisher  *publisher
	retries    *publisher  // on a channel of its own: a delay queue without a leader holds up what shares its channel
	management *management // nil without a URL

	reading chan struct{} // held by the one reading of the dead-letter store
	self    string        // the id of what this driver tells others

	unmarkable atomic.Bool // the broker refuses the marks of exchanges
	marked     *session    // on which the marks' bindings were asked for; of who has the consuming link's turn

	wg sync.WaitGroup // the publisher's and the consumers' goroutines

	mu        sync.Mutex
	closing   bool
	consumers map[*consumer]struct{}
	tags      uint64
	inFlight  int           // calls of Publish
	idle      chan struct{} // closed when closing and inFlight is 0
}

var _ bus.Driver = (*Driver)(nil)

// New makes a driver and begins to connect. It does not wait for the broker; it fails only over the configuration.
func New(cfg Config) (*Driver, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	api, err := newManagement(&cfg)
	if err != nil {
		return nil, err
	}
	d := &Driver{cfg: &cfg, management: api, consumers: map[*consumer]struct{}{}, idle: make(chan struct{}), reading: make(chan struct{}, 1)}
	d.topology = newTopology(d.cfg)
	d.topology.made = d.reattach
	d.delays = newDelays(d.topology)
	first := rand.IntN(len(cfg.URLs)) //nolint:gosec // spreads connections, and keeps no secret
	d.publishing = newLink(d.cfg, "publish", first, d.declareAll)
	d.consuming = newLink(d.cfg, "consume", first, d.declareBase)
	d.carriers = newCarriers(d.consuming)
	d.desks = newDesks(d.consuming)
	d.publisher = newPublisher(d.publishing, d.topology, d.restore)
	d.retries = newPublisher(d.publishing, d.topology, d.restore)
	d.publishing.start()
	d.consuming.start()
	d.wg.Go(d.publisher.run)
	d.wg.Go(d.retries.run)
	if err := cmp.Or(d.countDropped(), d.watchExchanges()); err != nil {
		return nil, errors.Join(err, d.Close(context.Background()))
	}
	return d, nil
}

// Backend is "rabbitmq".
func (d *Driver) Backend() string { return "rabbitmq" }

// declareBase prepares the connection for consuming; consumers declare their queues when they attach.
func (d *Driver) declareBase(_ context.Context, s *session, admin *amqp.Channel) error {
	return d.topology.declareBase(s, admin)
}

// declareAll prepares the connection for publishing: the queues must exist before anything is published to them.
func (d *Driver) declareAll(ctx context.Context, s *session, admin *amqp.Channel) error {
	if err := d.topology.declareBase(s, admin); err != nil {
		return err
	}
	return d.topology.declareDurable(ctx, s)
}

// reattach has the consumers of a queue that was just made begin again. Where a quorum queue is deleted and made anew at
// once, RabbitMQ 3.10 never tells those who consumed it: they would wait for ever, for deliveries of a queue that is gone.
func (d *Driver) reattach(queue string) {
	for _, c := range d.active() {
		if c.q.Name == queue {
			c.beginAgain()
		}
	}
}

// active lists the consumers.
func (d *Driver) active() []*consumer {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]*consumer, 0, len(d.consumers))
	for c := range d.consumers {
		list = append(list, c)
	}
	return list
}

// Publish sends a message and returns nil when the broker has confirmed it: for a durable queue, when it is on disk.
//
// A message whose connection or channel is lost before the confirmation is sent again, with the same id, until ctx ends.
// So consumers may see it twice, and messages that were under way together may change places. A message to an exchange
// that does not exist has it declared as a durable topic exchange first. A message that the broker refuses (nack), because
// a queue is full or has lost its node, is sent again too, until ctx ends with bus.ErrNotConfirmed; what the broker would
// never take is bus.ErrInvalid.
func (d *Driver) Publish(ctx context.Context, m *bus.Message) error {
	return d.Begin(ctx, m)()
}

// Begin is Publish without the wait: confirm waits for the broker, and sends again what was lost with its connection.
func (d *Driver) Begin(ctx context.Context, m *bus.Message) (confirm func() error) {
	if err := checkMessage(m, d.cfg.MaxMessageBytes, m.Exchange == d.cfg.DeadLetterExchange); err != nil {
		return func() error { return err }
	}
	if !d.enter() {
		return func() error { return bus.ErrClosed }
	}
	landed := d.publisher.begin(ctx, &outgoing{
		exchange:   d.topology.exchange(m.Exchange),
		key:        m.RoutingKey,
		declare:    true,
		mandatory:  m.Mandatory,
		publishing: toPublishing(m),
	})
	return func() error {
		defer d.leave()
		return landed()
	}
}

// enter counts a call of Publish, unless the driver is closing.
func (d *Driver) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return false
	}
	d.inFlight++
	return true
}

func (d *Driver) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inFlight--
	if d.closing && d.inFlight == 0 {
		close(d.idle)
	}
}

// Subscribe declares the queue and its bindings and starts to consume; for a quorum queue that did not exist it waits
// until a crash of the broker would leave it there, 1.5 s. A queue that exists with other arguments is bus.ErrInvalid, with what to do; a broker that does not come by the end of ctx is bus.ErrUnavailable, and then nothing
// stays behind but a durable queue, if it was declared by then.
func (d *Driver) Subscribe(ctx context.Context, q bus.Queue) (bus.Consumer, error) {
	if err := checkQueue(&q); err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	c, err := d.register(q, ready) //nolint:contextcheck // ctx bounds the call; the consumer lives until Close
	if err != nil {
		return nil, err
	}
	select {
	case err = <-ready:
	case <-c.ended:
		err = bus.ErrClosed
		select {
		case err = <-ready:
		default:
		}
	case <-ctx.Done():
		c.cancel()
		err = c.trouble()
		if err == nil || errors.Is(err, errLost) {
			_, err = d.consuming.peek()
		}
		if err == nil {
			err = errors.New("the broker has not answered yet")
		}
		return nil, fmt.Errorf("subscribe to queue %q: %w: %w (%s)", q.Name, bus.ErrUnavailable, context.Cause(ctx), err.Error())
	}
	if err != nil {
		return nil, fmt.Errorf("subscribe to queue %q: %w", q.Name, err)
	}
	if err := d.topology.newborns.settled(ctx, q.Name); err != nil {
		c.cancel()
		return nil, fmt.Errorf("subscribe to queue %q: %w: %w (it is new, and would not survive a crash of the broker yet)", q.Name, bus.ErrUnavailable, err)
	}
	d.topology.remember(q)
	return c, nil
}

// register starts a consumer.
func (d *Driver) register(q bus.Queue, ready chan error) (*consumer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closing {
		return nil, bus.ErrClosed
	}
	d.tags++
	c := newConsumer(d, q, fmt.Sprintf("%s-%d", d.cfg.ConnectionName, d.tags))
	d.consumers[c] = struct{}{}
	d.wg.Go(func() {
		c.run(ready)
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.consumers, c)
	})
	return c, nil
}

// checkQueue reports what the broker would not take, and sets what is left out.
func checkQueue(q *bus.Queue) error {
	if q.Name == "" || len(q.Name) > maxShortString {
		return fmt.Errorf("%w: queue name %q: it must have 1 to %d bytes", bus.ErrInvalid, q.Name, maxShortString)
	}
	for _, b := range q.Bindings {
		if len(b.Pattern) > maxShortString || len(b.Exchange) > maxShortString {
			return fmt.Errorf("%w: queue %q: a binding's exchange and pattern have at most %d bytes", bus.ErrInvalid, q.Name, maxShortString)
		}
	}
	q.Prefetch = min(max(q.Prefetch, 1), 65_535)
	return nil
}

// Queues lists the queues that this driver declared, and the dead-letter store, with the broker's counts. AMQP has no
// question for the queues of others: with ManagementURL those of the whole virtual host are listed.
func (d *Driver) Queues(ctx context.Context) ([]bus.QueueInfo, error) {
	known, exclusive, err := d.known(ctx)
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	list := make([]bus.QueueInfo, 0, len(known))
	for _, info := range known {
		if info.Exchange == d.topology.tellName() {
			continue // the drivers' own
		}
		if exclusive[info.Name] { // only its own connection may ask for it
			list = append(list, info)
			continue
		}
		err := d.inspect(ctx, &info)
		switch {
		case answered(err, amqp.NotFound):
		case err != nil:
			return nil, fmt.Errorf("list queues: %w", err)
		default:
			list = append(list, info)
		}
	}
	return list, nil
}

// known lists queues whose counts are to be asked for, and which of them are exclusive to some other connection.
func (d *Driver) known(ctx context.Context) ([]bus.QueueInfo, map[string]bool, error) {
	if d.management != nil {
		list, exclusive, err := d.management.queues(ctx)
		for _, c := range d.active() {
			delete(exclusive, c.q.Name)
		}
		return list, exclusive, err
	}
	known := d.topology.durable()
	for _, c := range d.active() {
		if !c.ownChannel() {
			known = append(known, c.q)
		}
	}
	known = append(known, bus.Queue{
		Name:     d.topology.storeName(),
		Bindings: []bus.Binding{{Exchange: d.cfg.DeadLetterExchange, Pattern: "dead-letter.#"}},
	})
	list := make([]bus.QueueInfo, len(known))
	for i, q := range known {
		list[i].Name = q.Name
		if len(q.Bindings) > 0 {
			list[i].Topic, list[i].Exchange = q.Bindings[0].Pattern, d.topology.exchange(q.Bindings[0].Exchange)
		}
	}
	return list, nil, nil
}

// inspect asks for a queue's counts, on the connection that may ask for our exclusive ones.
func (d *Driver) inspect(ctx context.Context, info *bus.QueueInfo) error {
	for {
		err := d.consuming.do(ctx, func(_ *session, admin *amqp.Channel) error {
			found, err := admin.QueueDeclarePassive(info.Name, false, false, false, false, nil)
			info.Messages, info.Consumers = int64(found.Messages), int64(found.Consumers)
			return err
		})
		if !errors.Is(err, errLost) {
			return err
		}
	}
}

// DeleteQueue removes a queue with what is in it, and with its delay queues. Consumers of
// the queue here end; those of other programs declare it again if they are such as ours.
func (d *Driver) DeleteQueue(ctx context.Context, name string) error {
	for _, c := range d.active() {
		if c.q.Name == name {
			if err := c.Close(ctx); err != nil {
				return err
			}
		}
	}
	d.topology.forget(name)
	for {
		err := d.consuming.do(ctx, func(_ *session, admin *amqp.Channel) error {
			_, err := admin.QueueDelete(name, false, false, false)
			return err
		})
		if errors.Is(err, errLost) {
			continue
		}
		if err != nil && !answered(err, amqp.NotFound) {
			return fmt.Errorf("delete queue %q: %w", name, err)
		}
		return d.delays.dropAll(ctx, d.consuming, name) // a broker that is short of memory reads nothing from those who publish
	}
}

// Ready reports whether the broker can be published to now: bus.ErrUnavailable with the reason if it is away, or takes
// no messages because it is short of memory or disk. While a first attempt to connect is under way it waits for how that
// ends, as long as ctx lasts.
func (d *Driver) Ready(ctx context.Context) error {
	for {
		moved := d.publishing.moved() // asked for before looking, lest a change between be missed
		changed, lane := d.publisher.state()
		s, reason := d.publishing.peek()
		switch {
		case s == nil && !errors.Is(reason, errConnecting):
			return fmt.Errorf("%w: RabbitMQ: %s", bus.ErrUnavailable, fmt.Sprint(reason))
		case s != nil && lane:
			if blocked, why := s.blocked(); blocked != nil {
				return fmt.Errorf("%w: RabbitMQ takes no messages: %s", bus.ErrUnavailable, why)
			}
			return nil
		}
		select {
		case <-changed:
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("%w: RabbitMQ: %w", bus.ErrUnavailable, context.Cause(ctx))
		case <-d.publishing.ctx.Done():
			return bus.ErrClosed
		}
	}
}

// Close ends consumers, waits for deliveries in work to be settled and for confirmations under way while ctx lasts, and
// closes the connections; what is not settled by then goes back to its queue. A second call waits for the first.
func (d *Driver) Close(ctx context.Context) error {
	d.mu.Lock()
	first := !d.closing
	d.closing = true
	if first && d.inFlight == 0 {
		close(d.idle)
	}
	d.mu.Unlock()
	consumers := d.active()
	for _, c := range consumers {
		c.cancel()
	}
	var unfinished error
	for _, c := range consumers {
		unfinished = cmp.Or(c.Close(ctx), unfinished)
	}
	unfinished = cmp.Or(d.carriers.settledAll(ctx), unfinished)
	select {
	case <-d.idle:
	case <-ctx.Done():
		unfinished = cmp.Or(unfinished, fmt.Errorf("close: messages were under way: %w", context.Cause(ctx)))
	}
	var both sync.WaitGroup
	both.Go(func() { d.consuming.close(ctx) })
	both.Go(func() { d.publishing.close(ctx) })
	both.Wait()
	d.wg.Wait()
	d.management.close()
	return unfinished
}
