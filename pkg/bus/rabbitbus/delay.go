package rabbitbus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

const (
	// delayIdle is how much longer than its delay a delay queue stays when nobody declares it again. RabbitMQ removes
	// an unused queue also when messages are in it, so the queue is declared again before a message is sent to it,
	// unless that was done less than delayFresh ago: the last message then still has delayIdle-delayFresh to spare.
	delayIdle  = time.Hour
	delayFresh = time.Minute
	// maxDelay keeps delay and idle time below RabbitMQ's limit for a time to live.
	maxDelay = 30 * 24 * time.Hour
)

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

// roundDelay rounds a delay up to two significant digits in milliseconds, so that delays with jitter need tens of
// queues, not thousands.
func roundDelay(d time.Duration) time.Duration {
	ms := int64((min(d, maxDelay) + time.Millisecond - 1) / time.Millisecond)
	unit := int64(1)
	for ms/unit >= 100 {
		unit *= 10
	}
	return time.Duration((ms+unit-1)/unit*unit) * time.Millisecond
}

// delayQueueName is the queue in which messages of a queue wait: {queue}.delay.{ms}. A name that would be too long is
// cut, and told apart by a hash.
func delayQueueName(queue string, delay time.Duration) string {
	suffix := ".delay." + strconv.FormatInt(delay.Milliseconds(), 10)
	if len(queue)+len(suffix) <= maxShortString {
		return queue + suffix
	}
	sum := sha256.Sum256([]byte(queue))
	mark := "~" + hex.EncodeToString(sum[:8])
	return strings.ToValidUTF8(queue[:maxShortString-len(suffix)-len(mark)], "") + mark + suffix
}

// ensure declares the delay queue of a queue, unless it was lately, and returns its name.
func (d *delays) ensure(ctx context.Context, l *link, q bus.Queue, delay time.Duration) (string, error) {
	name := delayQueueName(q.Name, delay)
	current, _ := l.peek()
	d.mu.Lock()
	known, found := d.declared[name]
	d.mu.Unlock()
	if found && known.s == current && time.Since(known.at) < delayFresh {
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

// args are a delay queue's arguments. Beside a durable queue, of either kind, it is a quorum queue that hands over with
// confirmation. A classic one hands over without: killed under load, RabbitMQ 3.10 lost one or two of some four hundred
// delayed messages in two runs of eight, each in the moment between the two queues.
func (d *delays) args(q bus.Queue, delay time.Duration) amqp.Table {
	args := amqp.Table{
		amqp.QueueMessageTTLArg:     delay.Milliseconds(),
		amqp.QueueTTLArg:            (delay + delayIdle).Milliseconds(),
		"x-dead-letter-exchange":    "",
		"x-dead-letter-routing-key": q.Name,
		amqp.QueueTypeArg:           string(Classic),
	}
	if q.Durable {
		args[amqp.QueueTypeArg] = string(Quorum)
		args["x-dead-letter-strategy"] = "at-least-once"
		args[amqp.QueueOverflowArg] = amqp.QueueOverflowRejectPublish
	}
	return args
}

// forget drops a name, so that it is declared before it is used again.
func (d *delays) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.declared, name)
}

// drop removes the delay queues of a queue that is gone, those that this driver knows.
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
	for _, name := range names {
		if err := l.do(ctx, func(_ *session, admin *amqp.Channel) error {
			_, err := admin.QueueDelete(name, false, false, false)
			return wrapf(err, "remove delay queue %q", name)
		}); err != nil {
			return err
		}
	}
	return nil
}
