package rabbitbus

import (
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// deskCount is how many requests for queues that go with their consumers are under way at a time. The broker answers one
// channel's requests one after another, and what it writes down of each queue takes it milliseconds: with 8 to 32
// channels it makes and removes queues three times as fast as with one.
const deskCount = 32

// desks take requests for queues that go with their consumers, each on a channel of its own. A node has one such queue for
// each of its clients, and makes all of them again when it has lost its connection.
type desks struct {
	link *link
	free chan *desk
}

type desk struct {
	s  *session
	ch *amqp.Channel
}

func newDesks(l *link) *desks {
	d := &desks{link: l, free: make(chan *desk, deskCount)}
	for range deskCount {
		d.free <- &desk{}
	}
	return d
}

// serve waits for a free desk and runs a request there, as link.serve does on the channel that the connection has for
// requests. A refused request ends the desk's channel alone.
func (d *desks) serve(ctx context.Context, request func(s *session, ch *amqp.Channel) error) error {
	var at *desk
	select {
	case at = <-d.free:
		defer func() { d.free <- at }()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	case <-d.link.ctx.Done():
		return bus.ErrClosed
	}
	s, err := d.link.wait(ctx)
	if err != nil {
		return err
	}
	if at.s != s || at.ch.IsClosed() {
		ch, err := s.conn.Channel()
		if err != nil {
			return classify(s, err)
		}
		at.s, at.ch = s, ch
	}
	return classify(s, request(s, at.ch))
}
