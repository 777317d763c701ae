package rabbitbus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// watchEvery is how often a driver looks whether an exchange of ours was deleted, by whomever.
const watchEvery = 3 * time.Second

// restoreTimeout bounds declaring everything again while connected. Publishers wait for it.
const restoreTimeout = 30 * time.Second

// With an exchange go the bindings of all queues, and RabbitMQ tells nobody; when it is there again, publishing to it is
// confirmed, and reaches none of them. So beside each of the two exchanges of the configuration is a mark: another exchange,
// {exchange}.mark, that removes itself when it leads nowhere (auto-delete), and leads to the one that it marks. Nothing is ever
// published to it. Where it is missing the exchange was deleted; who finds that tells the other processes, through a third
// exchange on which each has a queue, makes the mark anew, and all restore their bindings.

// markName is the mark of an exchange.
func markName(exchange string) string { return exchange + ".mark" }

// tellName is the exchange through which processes tell one another to restore.
func (t *topology) tellName() string { return t.cfg.Exchange + ".topology" }

// watchExchanges restores what went with an exchange of ours, until the driver closes: when another process says so, and when a
// mark is missing.
func (d *Driver) watchExchanges() error {
	d.self = strconv.FormatUint(rand.Uint64(), 36) //nolint:gosec // tells processes apart, and keeps no secret
	tell := d.topology.tellName()
	refused := make(chan error, 1)
	c, err := d.register(bus.Queue{
		Name: tell + "." + d.self, Exclusive: true, AutoAck: true, Prefetch: 1, Bindings: []bus.Binding{{Exchange: tell, Pattern: "#"}},
	}, refused)
	if err != nil {
		return err
	}
	told := make(chan struct{}, 1)
	d.wg.Go(func() {
		for x := range c.Deliveries() {
			if x.Message().ID == d.self {
				continue
			}
			select {
			case told <- struct{}{}:
			default: // it is about to be done
			}
		}
		select {
		case err := <-refused:
			if err != nil {
				d.cfg.Logger.Warn("this driver will not be told when another one finds that an exchange was deleted", "error", err)
			}
		default:
		}
	})
	d.wg.Go(func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-told:
				d.publisher.restoreSoon()
			case <-tick.C:
				if len(d.unmarked(d.consuming.ctx)) > 0 {
					d.publisher.restoreSoon()
				}
			case <-d.consuming.ctx.Done():
				return
			}
		}
	})
	return nil
}

// restore declares everything again while connected, after somebody removed an exchange and with it all bindings, and has the
// other processes do so.
func (d *Driver) restore(ctx context.Context) {
	if gone := d.unmarked(ctx); len(gone) > 0 {
		if err := d.tell(gone); err != nil {
			d.cfg.Logger.Error("cannot tell other processes that an exchange was deleted", "exchanges", gone, "error", err)
			if answered(err, amqp.AccessRefused) || answered(err, amqp.PreconditionFailed) {
				d.unmarkable.Store(true) // asking every few seconds would not help
			}
		}
	}
	d.declareAgain(ctx)
}

// unmarked lists the exchanges of ours whose mark is missing. Without a connection it lists none: all is declared on the next.
func (d *Driver) unmarked(ctx context.Context) (gone []string) {
	if s, _ := d.consuming.peek(); s == nil || d.unmarkable.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	found := make(chan string, 2)
	err := d.consuming.do(ctx, func(s *session, _ *amqp.Channel) error {
		for _, name := range []string{d.cfg.Exchange, d.cfg.DeadLetterExchange} {
			there, err := s.exists(func(ch *amqp.Channel) error {
				return ch.ExchangeDeclarePassive(markName(name), amqp.ExchangeFanout, true, true, true, false, nil)
			})
			if err != nil {
				return err
			}
			if !there {
				found <- name
				continue
			}
			if d.marked == s {
				continue
			}
			// Who made the mark may have died before it was bound.
			if err := s.request(func(ch *amqp.Channel) error { return ch.ExchangeBind(name, "", markName(name), true, nil) }); err != nil {
				return err
			}
		}
		d.marked = s
		return nil
	})
	if err != nil {
		return nil
	}
	close(found)
	for name := range found {
		gone = append(gone, name)
	}
	return gone
}

// tell has the other processes restore, and makes the marks anew; in this order, lest somebody find nothing amiss who was not
// told. It uses a channel of its own, outside of the link's turn: RabbitMQ answers a request for a binding only when all nodes have.
func (d *Driver) tell(gone []string) error {
	s, err := d.publishing.peek()
	if s == nil {
		return err
	}
	ch, err := s.conn.Channel()
	if err != nil {
		return err
	}
	defer func() { _ = ch.Close() }()
	if err := ch.ExchangeDeclare(d.topology.tellName(), amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
		return err
	}
	err = ch.Publish(d.topology.tellName(), "restore", false, false, amqp.Publishing{MessageId: d.self})
	if err != nil {
		return err
	}
	for _, name := range gone {
		if err := ch.ExchangeDeclare(name, amqp.ExchangeTopic, true, false, false, false, nil); err != nil {
			return err
		}
		if err := ch.ExchangeDeclare(markName(name), amqp.ExchangeFanout, true, true, true, false, nil); err != nil {
			return fmt.Errorf("declare the mark of exchange %q: %w", name, err)
		}
		if err := ch.ExchangeBind(name, "", markName(name), false, nil); err != nil {
			if again, opened := s.conn.Channel(); opened == nil { // unbound it would stay, and hide that the exchange is gone
				_ = again.ExchangeDelete(markName(name), false, false)
				_ = again.Close()
			}
			return fmt.Errorf("bind the mark of exchange %q: %w", name, err)
		}
	}
	return nil
}

// declareAgain declares what this driver has declared, on the present connections. Queues that belong to the consuming
// connection can be bound only there.
func (d *Driver) declareAgain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	d.topology.bindings.forget(func(route) bool { return true })
	err := d.publishing.do(ctx, func(s *session, admin *amqp.Channel) error { return d.declareAll(ctx, s, admin) })
	if err != nil {
		d.cfg.Logger.Error("cannot declare exchanges and queues again", "error", err)
	}
	if s, _ := d.consuming.peek(); s == nil {
		return // they are declared when it connects
	}
	var asking sync.WaitGroup
	places := make(chan struct{}, deskCount)
	for _, c := range d.active() {
		if c.ownChannel() {
			continue
		}
		places <- struct{}{}
		asking.Go(func() {
			defer func() { <-places }()
			err := c.ask(ctx, func(s *session, ch *amqp.Channel) error { return d.bindAgain(s, ch, c) })
			if err != nil && c.ctx.Err() == nil {
				d.cfg.Logger.Error("cannot bind a queue again", "queue", c.q.Name, "error", err)
			}
		})
	}
	asking.Wait()
}

// bindAgain declares the queue of a consumer, unless it is going. A queue that goes with its consumer may have been removed meanwhile, and
// one made anew would have none to go with.
func (d *Driver) bindAgain(s *session, ch *amqp.Channel, c *consumer) error {
	going := func() bool { return c.ctx.Err() != nil }
	if going() {
		return nil
	}
	err := d.topology.declareQueue(s, ch, c.q)
	if err == nil && c.passing() && going() {
		_, err = ch.QueueDelete(c.q.Name, false, false, false)
	}
	return err
}
