package rabbitbus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

const (
	// delayIdle is how much longer than its delay a delay queue that expires stays when nobody declares it again. RabbitMQ
	// removes an unused queue also when messages are in it, so the queue is declared again before a message is sent to it,
	// unless that was done less than delayFresh ago: the last message then still has delayIdle-delayFresh to spare.
	//
	// That is for classic queues alone. A quorum queue's time to live begins when it is made, and only consumers and
	// basic.get begin it anew, not its use: with x-expires of 2 s, declared and published to every 200 ms, RabbitMQ 3.10 removed
	// one after 5 s, when it next looked, with the 23 messages that were in it.
	delayIdle  = time.Hour
	delayFresh = time.Minute
	// maxDelay keeps delay and idle time below RabbitMQ's limit for a time to live.
	maxDelay = 30 * 24 * time.Hour
)

// delaySteps are the delays that there are queues for, in order. Those of a durable queue stay as long as it does, so they
// must be few, whatever pauses a server asks for (bus.RetryAfter).
func delaySteps() (steps []time.Duration) {
	for unit := time.Millisecond; unit < time.Second; unit *= 10 {
		steps = append(steps, unit, 2*unit, 3*unit, 5*unit)
	}
	for _, unit := range []time.Duration{time.Second, time.Minute} {
		for _, n := range []time.Duration{1, 2, 3, 5, 10, 15, 20, 30} {
			steps = append(steps, n*unit)
		}
	}
	for _, hours := range []time.Duration{1, 2, 3, 6, 12, 24, 2 * 24, 4 * 24, 7 * 24, 15 * 24, 30 * 24} {
		steps = append(steps, hours*time.Hour)
	}
	return steps
}

// delays knows the delay queues: a message waits in one without a consumer, and when its time has come the broker
// moves it to the queue that it belongs to. A queue has one delay, so that nothing waits behind a longer one.
type delays struct {
	topology *topology

	mu       sync.Mutex
	declared map[string]declaredDelay // by name
}

type declaredDelay struct {
	s     *session
	at    time.Time
	queue string
}

func newDelays(t *topology) *delays {
	return &delays{topology: t, declared: map[string]declaredDelay{}}
}

// roundDelay rounds a delay up to one of the steps.
func roundDelay(d time.Duration) time.Duration {
	steps := delaySteps()
	i, _ := slices.BinarySearch(steps, min(d, maxDelay))
	return steps[i]
}

// delayQueueName is the queue in which messages of a queue wait: {queue}.later.{ms} beside a durable one, whose delay queues
// stay unless it expires, and {queue}.delay.{ms} beside one that goes with its consumer. Earlier versions had quorum queues that expire as
// {queue}.delay.{ms} beside durable ones: RabbitMQ would refuse the name with other arguments. What is in those is handed
// over as it was, and they go by themselves. A name that would be too long is cut, and told apart by a hash.
func delayQueueName(q bus.Queue, delay time.Duration) string {
	suffix := ".delay." + strconv.FormatInt(delay.Milliseconds(), 10)
	if q.Durable {
		suffix = ".later." + strconv.FormatInt(delay.Milliseconds(), 10)
	}
	if len(q.Name)+len(suffix) <= maxShortString {
		return q.Name + suffix
	}
	sum := sha256.Sum256([]byte(q.Name))
	mark := "~" + hex.EncodeToString(sum[:8])
	return strings.ToValidUTF8(q.Name[:maxShortString-len(suffix)-len(mark)], "") + mark + suffix
}

// ensure declares the delay queue of a queue, unless it was lately, and returns its name.
func (d *delays) ensure(ctx context.Context, l *link, q bus.Queue, delay time.Duration) (string, error) {
	name := delayQueueName(q, delay)
	current, _ := l.peek()
	d.mu.Lock()
	known, found := d.declared[name]
	d.mu.Unlock()
	if found && known.s == current && (stays(q) || time.Since(known.at) < delayFresh) {
		return name, d.topology.newborns.settled(ctx, name)
	}
	err := l.do(ctx, func(s *session, admin *amqp.Channel) error {
		at := time.Now()
		if err := d.topology.declareNamed(s, admin, name, declaration{durable: true, args: d.args(q, delay)}); err != nil {
			return wrapf(err, "declare delay queue %q", name)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.declared[name] = declaredDelay{s: s, at: at, queue: q.Name}
		return nil
	})
	if err == nil {
		err = d.topology.newborns.settled(ctx, name)
	}
	return name, err
}

// stays reports whether a queue's delay queues stay as long as it does, rather than expire when they are not used.
func stays(q bus.Queue) bool { return q.Durable && q.Expires == 0 }

// args are a delay queue's arguments. Beside a durable queue, of either kind, it is a quorum queue that hands over with
// confirmation. A classic one hands over without: killed under load, RabbitMQ 3.10 lost one or two of some four hundred
// delayed messages in two runs of eight, each in the moment between the two queues. Nor may one expire that is to hold what
// cannot be handed over yet, as to a classic queue whose node is away. Queues that expire have classic ones, which go after them.
func (d *delays) args(q bus.Queue, delay time.Duration) amqp.Table {
	args := amqp.Table{
		amqp.QueueMessageTTLArg:     delay.Milliseconds(),
		"x-dead-letter-exchange":    "",
		"x-dead-letter-routing-key": q.Name,
	}
	if !stays(q) {
		args[amqp.QueueTypeArg] = string(Classic)
		args[amqp.QueueTTLArg] = (delay + min(q.Expires, maxDelay) + delayIdle).Milliseconds()
		return args
	}
	args[amqp.QueueTypeArg] = string(Quorum)
	args["x-dead-letter-strategy"] = "at-least-once"
	args[amqp.QueueOverflowArg] = amqp.QueueOverflowRejectPublish
	return args
}

// forget drops a name, so that it is declared before it is used again.
func (d *delays) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.declared, name)
}

// drop removes the delay queues of a queue that is gone with its consumer, those that this driver knows: it alone made them.
func (d *delays) drop(ctx context.Context, l *link, queue string) error {
	d.mu.Lock()
	var names []string
	for name, known := range d.declared {
		if known.queue == queue {
			names = append(names, name)
			delete(d.declared, name)
		}
	}
	d.mu.Unlock()
	return d.remove(ctx, l, names)
}

// dropAll removes all delay queues that a queue may have, whoever made them, but those of earlier versions, which expire.
func (d *delays) dropAll(ctx context.Context, l *link, queue string) error {
	if err := d.drop(ctx, l, queue); err != nil {
		return err
	}
	steps := delaySteps()
	names := make([]string, 0, len(steps))
	for _, step := range steps {
		names = append(names, delayQueueName(bus.Queue{Name: queue, Durable: true}, step))
	}
	return d.remove(ctx, l, names)
}

// remove deletes queues in one round trip: who has thousands of sessions removes as many queues. The broker does not mind
// names that are not there.
func (d *delays) remove(ctx context.Context, l *link, names []string) error {
	if len(names) == 0 {
		return nil
	}
	for {
		err := l.do(ctx, func(_ *session, admin *amqp.Channel) error {
			for i, name := range names {
				if _, err := admin.QueueDelete(name, false, false, i < len(names)-1); err != nil {
					return wrapf(err, "remove delay queue %q", name)
				}
			}
			return nil
		})
		if !errors.Is(err, errLost) { // otherwise do waits for the next connection
			return err
		}
	}
}
