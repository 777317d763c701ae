package rabbitbus

import (
	"context"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// settleTime is how long a quorum queue is not relied on after it was made. RabbitMQ 3.10 to 4.3 write down which log
// belongs to which queue 0.5 to 1 s after the last queue was made (the table names.dets saves itself, auto_save 500 ms),
// confirmed messages or not. When the broker is killed before that, it finds neither the queue's log nor its messages.
const settleTime = 1500 * time.Millisecond

// newborns are the quorum queues that this driver has just made.
type newborns struct {
	mu   sync.Mutex
	born map[string]time.Time
}

func newNewborns() *newborns { return &newborns{born: map[string]time.Time{}} }

// add notes that a queue was made now.
func (n *newborns) add(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.born[name] = time.Now()
}

// settled waits until a queue, if it is new, can be relied on.
func (n *newborns) settled(ctx context.Context, name string) error {
	n.mu.Lock()
	born, found := n.born[name]
	n.mu.Unlock()
	if !found {
		return nil
	}
	timer := time.NewTimer(settleTime - time.Since(born))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.born[name].Equal(born) { // it was not removed and made once more meanwhile
		delete(n.born, name)
	}
	return nil
}

// declareNamed declares a queue with what was decided for it, and notes one that was not there before. The broker does not
// tell in its answer, so it is asked before; not for queues that go with their consumers, of which there are many.
func (t *topology) declareNamed(s *session, ch *amqp.Channel, name string, d declaration) error {
	found := true
	if d.durable {
		var err error
		// What else may be wrong with it the declaration tells.
		found, err = s.exists(func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
			return err
		})
		if err != nil && s.conn.IsClosed() {
			return err
		}
		if found && name == t.droppedName() {
			return nil // of an earlier version, or another's: it is taken as it is
		}
	}
	if _, err := ch.QueueDeclare(name, d.durable, d.autoDelete, d.exclusive, false, d.args); err != nil {
		return mendable(name, err)
	}
	if found {
		return nil
	}
	t.bindings.forget(func(r route) bool { return r.queue == name })
	if d.args[amqp.QueueTypeArg] == string(Quorum) {
		t.newborns.add(name)
		t.made(name)
	}
	return nil
}
