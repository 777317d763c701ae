package rabbitbus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// Arguments of queues. A queue keeps those with which it was declared first, and RabbitMQ refuses to declare it with
// others: changing one here is a change of the wire contract.
const (
	// storeMaxLength and storeTTL bound the dead-letter store: the oldest go first, and are counted (dropped.go). To
	// refuse the newest instead (overflow reject-publish) would be told, by a nack, and then handlers whose messages
	// fail would stand still behind a full store.
	storeMaxLength = 100_000
	storeTTL       = 7 * 24 * time.Hour
	// noDeliveryLimit turns quorum queues' own limit off (RabbitMQ 4 has 20, then drops): the bus above counts
	// attempts. Versions before 4.0 do not take -1, which means the same, and the value must be one for all.
	noDeliveryLimit = 1_000_000
	// maxPriority is what contract and classic queues know: 0 to 9.
	maxPriority = 9
	// orphanTTL is how long a shared queue that is not durable outlives its last consumer, where a broker's restart let
	// it.
	orphanTTL = 30 * time.Minute
)

// topology is all that this driver has declared, or will when the broker is there. It is declared again on each
// connection, because a broker may come back empty.
type topology struct {
	cfg      *Config
	newborns *newborns
	bindings *bindings
	made     func(queue string) // told of a quorum queue that was not there

	storeWarning sync.Once

	mu     sync.Mutex
	queues map[string]bus.Queue // by name: durable ones, consumed now or not
	daprs  map[string]bool      // exchanges of Dapr's topics
}

func newTopology(cfg *Config) *topology {
	return &topology{cfg: cfg, newborns: newNewborns(), bindings: newBindings(), made: func(string) {}, queues: map[string]bus.Queue{}, daprs: map[string]bool{}}
}

// remember adds a durable queue to what is declared on each connection.
func (t *topology) remember(q bus.Queue) {
	if !q.Durable || q.Expires > 0 { // those that expire, only their consumers declare
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known, found := t.queues[q.Name]
	if found {
		for _, b := range known.Bindings {
			if !slices.Contains(q.Bindings, b) {
				q.Bindings = append(slices.Clone(q.Bindings), b)
			}
		}
	}
	t.queues[q.Name] = q
}

func (t *topology) forget(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.queues, name)
}

// durable lists the durable queues in order of name.
func (t *topology) durable() []bus.Queue {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]bus.Queue, 0, len(t.queues))
	for _, q := range t.queues {
		list = append(list, q)
	}
	slices.SortFunc(list, func(a, b bus.Queue) int { return cmpString(a.Name, b.Name) })
	return list
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// declareBase declares the exchanges and the dead-letter store.
func (t *topology) declareBase(s *session, ch *amqp.Channel) error {
	for _, name := range []string{t.cfg.Exchange, t.cfg.DeadLetterExchange} {
		if err := t.declareOwn(s, ch, name); err != nil {
			return fmt.Errorf("declare the durable topic exchange %q: %w", name, err)
		}
	}
	err := t.declareStore(s)
	if err == nil {
		err = t.bindings.bind(s, ch, route{t.storeName(), "dead-letter.#", t.cfg.DeadLetterExchange})
	}
	if answered(err, amqp.NotFound) { // a classic queue, whose node is away: all else must not wait for it
		t.cfg.Logger.Warn("the dead-letter store is away; dead letters stay in their queues until its node is back", "error", err)
		return nil
	}
	return wrapf(err, "declare the dead-letter store")
}

// declareOwn declares an exchange of ours, and notes one that was not there: its bindings went with it.
func (t *topology) declareOwn(s *session, ch *amqp.Channel, name string) error {
	found, err := s.exists(func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(name, amqp.ExchangeTopic, true, false, false, false, nil)
	})
	if err == nil && !found {
		t.bindings.forget(func(r route) bool { return r.exchange == name })
	}
	if err != nil && s.conn.IsClosed() {
		return err
	}
	return ch.ExchangeDeclare(name, amqp.ExchangeTopic, true, false, false, false, nil)
}

// declarePassing declares a queue that goes with its consumer, or some time after it, in one round trip: a node has thousands of them, and declares
// all again after the loss of its connection. The broker answers for the last request, or refuses the first that it will
// not do, which closes the channel.
func (t *topology) declarePassing(ch *amqp.Channel, q bus.Queue, d declaration) error {
	for _, b := range q.Bindings {
		if err := ch.ExchangeDeclare(t.exchange(b.Exchange), amqp.ExchangeTopic, true, false, false, true, nil); err != nil {
			return err
		}
	}
	if _, err := ch.QueueDeclare(q.Name, d.durable, d.autoDelete, d.exclusive, true, d.args); err != nil {
		return err
	}
	for i, b := range q.Bindings {
		last := i == len(q.Bindings)-1
		if err := ch.QueueBind(q.Name, b.Pattern, t.exchange(b.Exchange), !last, nil); err != nil {
			return fmt.Errorf("declare and bind queue %q: %w", q.Name, mendable(q.Name, err))
		}
	}
	return nil
}

// isOurs reports whether there are bindings, all to exchanges that this driver declares itself.
func (t *topology) isOurs(bindings []bus.Binding) bool {
	for _, b := range bindings {
		if name := t.exchange(b.Exchange); name != t.cfg.Exchange && name != t.cfg.DeadLetterExchange && name != t.tellName() {
			return false
		}
	}
	return len(bindings) > 0
}

// declareQueue declares a queue, the exchanges that it is bound to, and its bindings. The channel is closed by the
// broker when it refuses, but for exchanges, which are asked for on channels of their own.
func (t *topology) declareQueue(s *session, ch *amqp.Channel, q bus.Queue) error {
	if d := t.declaration(q); (d.exclusive || q.Expires > 0) && t.isOurs(q.Bindings) {
		return t.declarePassing(ch, q, d)
	}
	for _, b := range q.Bindings {
		if err := t.declareExchange(s, ch, b.Exchange); err != nil {
			return err
		}
	}
	if err := t.declareNamed(s, ch, q.Name, t.declaration(q)); err != nil {
		return fmt.Errorf("declare queue %q: %w", q.Name, err)
	}
	bind := t.bindings.bind
	if !q.Durable { // it goes with its consumer, and its bindings with it
		bind = ask
	}
	for _, b := range q.Bindings {
		if err := bind(s, ch, route{q.Name, b.Pattern, t.exchange(b.Exchange)}); err != nil {
			return err
		}
	}
	return nil
}

// declaration is how a queue is declared.
type declaration struct {
	durable, autoDelete, exclusive bool
	args                           amqp.Table
}

// declaration decides flags and arguments. RabbitMQ 4 refuses a queue that is neither durable nor exclusive, so one
// that is shared and goes with its last consumer is durable and auto-delete there.
func (t *topology) declaration(q bus.Queue) declaration {
	args := amqp.Table{
		"x-dead-letter-exchange":    t.cfg.DeadLetterExchange,
		"x-dead-letter-routing-key": deadLetterKey(q),
	}
	switch {
	case q.Name == t.droppedName():
		return declaration{durable: true, args: t.droppedArgs()}
	case q.Name == t.storeName():
		return declaration{durable: true, args: t.storeArgs()}
	case q.Durable && q.Expires > 0: // of one client: a node has thousands, too many for quorum queues
		args[amqp.QueueTypeArg] = string(Classic)
		args[amqp.QueueTTLArg] = q.Expires.Milliseconds()
		if q.MaxMessages > 0 {
			args[amqp.QueueMaxLenArg] = int64(q.MaxMessages)
		}
		if q.MaxBytes > 0 {
			args[amqp.QueueMaxLenBytesArg] = q.MaxBytes
		}
		if q.Overflow != "" { // by the default exchange, straight into that queue
			args["x-dead-letter-exchange"], args["x-dead-letter-routing-key"] = "", q.Overflow
		}
		return declaration{durable: true, args: args}
	case q.Durable && t.cfg.QueueType == Quorum:
		args[amqp.QueueTypeArg] = string(Quorum)
		args["x-delivery-limit"] = int64(noDeliveryLimit)
		return declaration{durable: true, args: args}
	case q.Durable:
		args[amqp.QueueTypeArg] = string(Classic)
		args["x-max-priority"] = int64(maxPriority)
		return declaration{durable: true, args: args}
	case q.Exclusive:
		return declaration{autoDelete: true, exclusive: true, args: args}
	default:
		args[amqp.QueueTTLArg] = orphanTTL.Milliseconds()
		return declaration{durable: true, autoDelete: true, args: args}
	}
}

// deadLetterKey is the key under which the broker itself sends what expires in a queue to the dead-letter exchange. An
// argument of the queue, it is one for all its messages: the topic, where the queue is bound to one, else the queue's
// name.
func deadLetterKey(q bus.Queue) string {
	name := q.Name
	if len(q.Bindings) > 0 && !isPattern(q.Bindings[0].Pattern) &&
		!slices.ContainsFunc(q.Bindings, func(b bus.Binding) bool { return b.Pattern != q.Bindings[0].Pattern }) {
		name = q.Bindings[0].Pattern
	}
	key := "dead-letter." + name
	if len(key) > maxShortString {
		key = key[:maxShortString]
	}
	return key
}

// isPattern reports whether a binding key matches more than itself.
func isPattern(key string) bool {
	for i := range len(key) {
		if key[i] == '*' || key[i] == '#' {
			return true
		}
	}
	return false
}

// exchange is the name that "" stands for.
func (t *topology) exchange(name string) string {
	if name == "" {
		return t.cfg.Exchange
	}
	return name
}

// declareExchange makes sure that an exchange exists: one that exists is taken as it is, whatever its type; another is
// declared as a durable topic exchange.
func (t *topology) declareExchange(s *session, ch *amqp.Channel, name string) error {
	name = t.exchange(name)
	if name == t.cfg.Exchange || name == t.cfg.DeadLetterExchange {
		// Passing by, this heals one that was deleted since the connection was made.
		return t.declareOwn(s, ch, name)
	}
	found, err := s.exists(func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(name, amqp.ExchangeTopic, true, false, false, false, nil)
	})
	if found || err != nil {
		return wrapf(err, "look for exchange %q", name)
	}
	t.bindings.forget(func(r route) bool { return r.exchange == name })
	create, err := s.conn.Channel()
	if err != nil {
		return err
	}
	defer func() { _ = create.Close() }()
	if t.isDaprs(name) {
		return wrapf(create.ExchangeDeclare(name, amqp.ExchangeFanout, t.cfg.DaprDurable, t.cfg.DaprAutoDelete, false, false, nil), "declare the exchange %q as Dapr does", name)
	}
	return wrapf(create.ExchangeDeclare(name, amqp.ExchangeTopic, true, false, false, false, nil), "declare the topic exchange %q", name)
}

// declareDurable declares all durable queues. One that cannot be declared is logged, and does not hold up the others.
func (t *topology) declareDurable(ctx context.Context, s *session) error {
	ch, err := s.conn.Channel()
	if err != nil {
		return err
	}
	for _, q := range t.durable() {
		if ctx.Err() != nil {
			break
		}
		if err := t.declareQueue(s, ch, q); err != nil {
			t.cfg.Logger.Error("cannot declare a queue again", "queue", q.Name, "error", err)
			if s.conn.IsClosed() {
				return err
			}
			if ch.IsClosed() {
				if ch, err = s.conn.Channel(); err != nil {
					return err
				}
			}
		}
	}
	return ch.Close()
}

// mendable adds what to do to the broker's refusal of a declaration.
func mendable(queue string, err error) error {
	switch {
	case answered(err, amqp.PreconditionFailed):
		return fmt.Errorf("%w: queue %q exists with other settings; delete it once it is empty, or set QueueType to what it is: %w", bus.ErrInvalid, queue, err)
	case answered(err, amqp.ResourceLocked):
		return fmt.Errorf("%w: queue %q is exclusive to another connection; choose another name: %w", bus.ErrInvalid, queue, err)
	case answered(err, amqp.AccessRefused):
		return fmt.Errorf("%w: the broker's user may not declare queue %q: %w", bus.ErrInvalid, queue, err)
	}
	return err
}

// wrapf adds a sentence to an error; nil stays nil.
func wrapf(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format+": %w", append(args, err)...)
}

// isRefusal reports whether the broker answered that it will not: asking again does not help.
func isRefusal(err error) bool {
	return errors.Is(err, bus.ErrInvalid) || answered(err, amqp.AccessRefused) || answered(err, amqp.PreconditionFailed) || answered(err, amqp.ResourceLocked)
}
