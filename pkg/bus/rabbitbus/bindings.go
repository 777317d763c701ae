package rabbitbus

import (
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// bindings are those that the broker has confirmed to this driver.
//
// RabbitMQ answers a request for a binding, be it there already or not, only when all nodes of its cluster have; one that is
// silent keeps the others from answering until they give it up, a minute later. A bus that comes to another node because its
// own is silent must not wait for that. So a binding that was confirmed once, whose queue and exchange are there still, is
// asked for again, lest somebody has removed it, and not waited for.
type bindings struct {
	mu        sync.Mutex
	confirmed map[route]bool
}

// route is a binding of a queue.
type route struct{ queue, pattern, exchange string }

func newBindings() *bindings { return &bindings{confirmed: map[route]bool{}} }

// bind binds a queue that is there, to an exchange that is.
func (b *bindings) bind(s *session, ch *amqp.Channel, r route) error {
	b.mu.Lock()
	known := b.confirmed[r]
	b.mu.Unlock()
	if known {
		return s.request(func(ch *amqp.Channel) error { return ch.QueueBind(r.queue, r.pattern, r.exchange, true, nil) })
	}
	if err := ask(s, ch, r); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.confirmed[r] = true
	return nil
}

// ask has the broker bind, and waits for its answer.
func ask(_ *session, ch *amqp.Channel, r route) error {
	err := ch.QueueBind(r.queue, r.pattern, r.exchange, false, nil)
	return wrapf(err, "bind queue %q to exchange %q with %q", r.queue, r.exchange, r.pattern)
}

// forget drops what went with a queue or an exchange, or all.
func (b *bindings) forget(gone func(r route) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for r := range b.confirmed {
		if gone(r) {
			delete(b.confirmed, r)
		}
	}
}

// request sends what is not answered, on a channel of its own, so that nothing waits behind it. The caller holds the
// link's turn, or is preparing the connection.
func (s *session) request(send func(ch *amqp.Channel) error) (err error) {
	if s.unanswered == nil || s.unanswered.IsClosed() {
		if s.unanswered, err = s.conn.Channel(); err != nil {
			return err
		}
	}
	return send(s.unanswered)
}

// exists asks whether something is there, on a channel for such questions, which the answer that it is not ends. The caller
// holds the link's turn, or is preparing the connection.
func (s *session) exists(ask func(ch *amqp.Channel) error) (found bool, err error) {
	if s.questions == nil || s.questions.IsClosed() {
		if s.questions, err = s.conn.Channel(); err != nil {
			return false, err
		}
	}
	err = ask(s.questions)
	if answered(err, amqp.NotFound) {
		return false, nil
	}
	return err == nil, err
}
