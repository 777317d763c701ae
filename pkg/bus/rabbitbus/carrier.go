package rabbitbus

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
)

// consumersPerChannel is how many short-lived queues share a channel. RabbitMQ allows 2 047 channels a connection by
// default, and each costs it a process: with a channel for each, a node could not serve the sessions of its clients.
const consumersPerChannel = 100

// carriers are the channels that consumers read on.
type carriers struct {
	link *link

	mu   sync.Mutex
	open map[*carrier]struct{}
}

// carrier is a channel, and the number of those who need it. It is closed when nobody does.
type carrier struct {
	of   *carriers
	s    *session
	ch   *amqp.Channel
	gone chan struct{} // closed when the channel is

	shared bool
	window int // the prefetch that consumers which start now get; see limit
	acks   *acks

	// of.mu guards these.
	consumers int
	unsettled int
	retired   bool
}

func newCarriers(l *link) *carriers { return &carriers{link: l, open: map[*carrier]struct{}{}} }

// board finds room for a consumer: on a channel of its own, or on one with others; then the caller holds the link's turn.
func (cs *carriers) board(s *session, share bool) (*carrier, error) {
	if share { // not asked otherwise: withRoom takes the place
		if c := cs.withRoom(s); c != nil {
			return c, nil
		}
	}
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, err
	}
	c := &carrier{of: cs, s: s, ch: ch, gone: make(chan struct{}), shared: share, consumers: 1, acks: newAcks(ch)}
	closes := ch.NotifyClose(make(chan *amqp.Error, 1))
	cs.mu.Lock()
	cs.open[c] = struct{}{}
	cs.mu.Unlock()
	if !cs.link.background(func() { c.watch(closes) }) || !cs.link.background(func() { c.acks.run(c.gone) }) {
		close(c.gone)
	}
	return c, nil
}

// limit sets the prefetch for the consumers that start after it, which is not the channel's own. The caller holds the
// link's turn, so that the next to start is the caller's, or has the channel for itself.
func (c *carrier) limit(prefetch int) error {
	if c.window == prefetch {
		return nil
	}
	if err := c.ch.Qos(prefetch, 0, false); err != nil {
		return err
	}
	c.window = prefetch
	return nil
}

// withRoom takes a place on a shared channel that has one.
func (cs *carriers) withRoom(s *session) *carrier {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		if c.shared && c.s == s && !c.retired && c.consumers < consumersPerChannel && !c.ch.IsClosed() {
			c.consumers++
			return c
		}
	}
	return nil
}

// settledAll waits until every channel's deliveries are settled, which closes it.
func (cs *carriers) settledAll(ctx context.Context) error {
	cs.mu.Lock()
	open := slices.Collect(maps.Keys(cs.open))
	cs.mu.Unlock()
	for _, c := range open {
		select {
		case <-c.gone:
		case <-ctx.Done():
			return fmt.Errorf("deliveries in work were not settled, and go back to their queues: %w", context.Cause(ctx))
		}
	}
	return nil
}

// watch follows the channel until it is closed.
func (c *carrier) watch(closes <-chan *amqp.Error) {
	if e := <-closes; e != nil && isChannelError(e.Code) {
		c.of.link.log.Warn("the broker closed a channel with consumers", "error", e)
	}
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	close(c.gone)
}

// delivered counts a delivery that must be settled on this channel.
func (c *carrier) delivered() { c.count(0, 1) }

// settled counts it off.
func (c *carrier) settled() { c.count(0, -1) }

// left counts a consumer off.
func (c *carrier) left() { c.count(-1, 0) }

// count closes the channel when its last consumer has left and the last delivery is settled.
func (c *carrier) count(consumers, unsettled int) {
	c.of.mu.Lock()
	c.consumers += consumers
	c.unsettled += unsettled
	retire := c.consumers == 0 && c.unsettled <= 0 && !c.retired
	c.retired = c.retired || retire
	c.of.mu.Unlock()
	if retire {
		c.of.link.background(func() {
			c.acks.flush()
			_ = c.ch.Close()
		})
	}
}
