package rabbitbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// nackPause is how long a message waits that the broker did not take before it is sent again, doubling up to nackPauseMost.
// To choose another leader takes a quorum queue a fraction of a second where a node died, and some seconds where it stopped.
const (
	nackPause     = 50 * time.Millisecond
	nackPauseMost = time.Second
)

// refusingFor is how long an exchange that refused a message is sent to on channels of their own.
const refusingFor = time.Minute

// outgoing is a message on its way to the broker.
type outgoing struct {
	exchange, key string
	declare       bool // make sure that the exchange exists; false for AMQP's own default exchange
	mandatory     bool
	publishing    amqp.Publishing
}

// publisher sends messages over one channel that all callers share. Each waits for its own confirmation only, outside
// any lock: measured on two cores, that carries more than a channel, or a connection, for each caller.
type publisher struct {
	link     *link
	topology *topology
	log      *slog.Logger
	restore  func(ctx context.Context) // declares everything again, after an exchange was found missing

	gone chan struct{} // has one place: an exchange of ours is

	tags atomic.Uint64 // for return tags

	mu        sync.Mutex
	lane      *lane         // nil while there is none
	changed   chan struct{} // closed and replaced when lane changes
	exchanges map[string]*session
	refusing  map[string]time.Time // exchanges that refused a message as a whole, and when
}

func newPublisher(l *link, t *topology, restore func(context.Context)) *publisher {
	return &publisher{link: l, topology: t, log: l.log, restore: restore, gone: make(chan struct{}, 1), changed: make(chan struct{}),
		exchanges: map[string]*session{}, refusing: map[string]time.Time{}}
}

// restoreSoon has everything declared again before anything more is sent: what is sent before all is bound would be confirmed, and reach nobody.
func (p *publisher) restoreSoon() {
	select {
	case p.gone <- struct{}{}:
	default: // it is about to be done
	}
}

// run keeps a lane open for as long as the link lives.
func (p *publisher) run() {
	pause := &backoff{first: 20 * time.Millisecond, most: 5 * time.Second}
	for {
		s, err := p.link.wait(p.link.ctx)
		if err != nil {
			return
		}
		l, err := openLane(s, p.link.background)
		if err != nil {
			p.log.Warn("cannot open a channel to publish on", "error", err)
			if pause.sleep(p.link.ctx) != nil {
				return
			}
			continue
		}
		p.set(l)
		if !p.link.background(l.watch) {
			l.watch() // it ends with the connection, which is being closed
		}
		select {
		case <-l.gone:
			p.set(nil)
			p.explain(l)
			if l.refusal() != nil && time.Since(l.opened) < time.Second && pause.sleep(p.link.ctx) != nil {
				return
			}
		case <-l.spent:
			p.set(nil)
			p.log.Warn("the broker did not take a message; it is sent again, on another channel")
		case <-p.gone:
			p.set(nil)
			l.stop()
			p.restore(p.link.ctx)
		}
		if time.Since(l.opened) > time.Second {
			pause.reset()
		}
	}
}

// explain says why a channel was closed over a message, and mends what was missing.
func (p *publisher) explain(l *lane) {
	reason := l.refusal()
	if reason == nil {
		return
	}
	p.log.Warn("the broker closed the channel over a message; the others on it are sent again", "error", reason)
	if reason.Code == amqp.NotFound {
		p.forgetExchanges()
		p.restore(p.link.ctx)
	}
}

func (p *publisher) set(l *lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lane = l
	close(p.changed)
	p.changed = make(chan struct{})
}

// state reports whether there is a lane, and returns the channel that is closed when that changes.
func (p *publisher) state() (changed <-chan struct{}, open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed, p.lane != nil && !p.lane.ended()
}

func (p *publisher) forgetExchanges() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.exchanges)
}

// publish sends a message and waits for the broker's confirmation. When the connection or the channel is lost while
// the message is unconfirmed, or the broker does not take it, it is sent again, with the same id, for as long as ctx lasts.
func (p *publisher) publish(ctx context.Context, o *outgoing) error {
	return p.begin(ctx, o)()
}

// begin writes a message; what it returns waits for the confirmation, and sends again what was lost.
func (p *publisher) begin(ctx context.Context, o *outgoing) (confirm func() error) {
	if p.refuses(o.exchange) {
		return func() error {
			err := p.alone(ctx, o)
			if answered(err, amqp.AccessRefused) || err != nil && ctx.Err() != nil {
				return gaveUp(err, true)
			}
			p.mu.Lock()
			delete(p.refusing, o.exchange)
			p.mu.Unlock()
			if err == nil {
				return nil
			}
			return p.begin(ctx, o)() // it is another matter now: the exchange was removed, or the connection
		}
	}
	f, err := p.launch(ctx, o)
	if err != nil {
		return func() error { return gaveUp(err, false) }
	}
	return func() error {
		pause := &backoff{first: nackPause, most: nackPauseMost}
		var refusal error // the broker's answer to the last attempt that had one
		for {
			err := f.landed(ctx, o)
			switch {
			case errors.Is(err, errNacked):
				refusal = err
				// Where the queue has lost its node, RabbitMQ 3.10 goes on refusing on this channel when others have taken over.
				f.lane.retire()
				if pause.sleep(ctx) != nil {
					return refused(ctx, refusal)
				}
			case errors.Is(err, errLost):
				refusal = nil
				if over, err := p.lost(ctx, f, o); over {
					return gaveUp(err, true)
				}
			case err != nil && refusal != nil && ctx.Err() != nil: // it would have been refused once more
				return refused(ctx, refusal)
			default:
				return gaveUp(err, true)
			}
			if f, err = p.launch(ctx, o); err != nil {
				if refusal != nil && ctx.Err() != nil {
					return refused(ctx, refusal)
				}
				return gaveUp(err, true)
			}
		}
	}
}

// refused is the end of a message that the broker refused until ctx ended.
func refused(ctx context.Context, refusal error) error {
	return fmt.Errorf("%w: %w: %w (%s)", bus.ErrNotConfirmed, bus.ErrRefused, context.Cause(ctx), refusal.Error())
}

// lost waits for the end of the channel that a message was lost with. It reports that the message needs no other attempt,
// and how that ended: one of those on a channel that the broker closed is at fault, and each shows by itself whether it is the one.
func (p *publisher) lost(ctx context.Context, f flight, o *outgoing) (over bool, err error) {
	select {
	case <-f.lane.gone:
	case <-ctx.Done():
		return true, context.Cause(ctx)
	}
	if reason := f.lane.refusal(); reason == nil || reason.Code == amqp.NotFound {
		return false, nil
	}
	err = p.alone(ctx, o)
	return !errors.Is(err, errLost), err
}

// launch writes a message on the lane that there is, or that comes while ctx lasts.
func (p *publisher) launch(ctx context.Context, o *outgoing) (flight, error) {
	for {
		l, err := p.ready(ctx)
		if err == nil && o.declare {
			err = p.ensureExchange(ctx, l.s, o.exchange)
		}
		var f flight
		if err == nil {
			f, err = l.launch(ctx, o, p.nextTag)
		}
		if !errors.Is(err, errLost) {
			return f, err
		}
		if l != nil { // it ends soon, or a new one would have to be waited for in a loop
			select {
			case <-l.gone:
			case <-l.spent:
			case <-ctx.Done():
				return f, context.Cause(ctx)
			}
		}
	}
}

func (p *publisher) nextTag() string { return strconv.FormatUint(p.tags.Add(1), 36) }

// gaveUp names the end of an attempt: a deadline that came before anything was sent is another thing than one after.
func gaveUp(err error, sent bool) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, bus.ErrUnroutable), errors.Is(err, bus.ErrInvalid), errors.Is(err, bus.ErrNotConfirmed):
		return err
	case errors.Is(err, errNacked):
		return fmt.Errorf("%w: %w: %w", bus.ErrNotConfirmed, bus.ErrRefused, err)
	case sent:
		return fmt.Errorf("%w: %w", bus.ErrNotConfirmed, withoutUnavailable(err))
	case errors.Is(err, bus.ErrUnavailable), errors.Is(err, bus.ErrClosed):
		return err
	}
	return fmt.Errorf("%w: %w", bus.ErrUnavailable, err)
}

// withoutUnavailable keeps the cause of an error, but not that nothing was sent.
func withoutUnavailable(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, bus.ErrUnavailable):
		return errors.New(err.Error())
	}
	return err
}

// ready waits for an open lane on a broker that takes messages.
func (p *publisher) ready(ctx context.Context) (*lane, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		p.mu.Lock()
		l, changed := p.lane, p.changed
		p.mu.Unlock()
		var wait <-chan struct{}
		why := ""
		if l == nil || l.ended() {
			wait = changed
			if _, reason := p.link.peek(); reason != nil {
				why = reason.Error()
			}
		} else if wait, why = l.s.blocked(); wait == nil {
			return l, nil
		}
		select {
		case <-wait:
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w (%s)", bus.ErrUnavailable, context.Cause(ctx), why)
		case <-p.link.ctx.Done():
			return nil, bus.ErrClosed
		}
	}
}

// ensureExchange declares an exchange other than the bus's own, once for each connection: what is published to one
// that does not exist closes the channel.
func (p *publisher) ensureExchange(ctx context.Context, s *session, name string) error {
	if name == p.topology.cfg.Exchange || name == p.topology.cfg.DeadLetterExchange {
		return nil
	}
	p.mu.Lock()
	known := p.exchanges[name] == s
	p.mu.Unlock()
	if known {
		return nil
	}
	err := p.link.do(ctx, func(s *session, admin *amqp.Channel) error {
		if err := p.topology.declareExchange(s, admin, name); err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.exchanges[name] = s
		return nil
	})
	if isRefusal(err) {
		return fmt.Errorf("%w: %w", bus.ErrInvalid, err)
	}
	return err
}

// refuses reports whether an exchange has refused a message lately, as those do that are internal or that the user may not write to.
// What goes there must not close the channel of all others each time.
func (p *publisher) refuses(exchange string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, found := p.refusing[exchange]
	if found && time.Since(at) > refusingFor {
		delete(p.refusing, exchange)
		return false
	}
	return found
}

// noteRefusal remembers an exchange that refuses whatever it is sent. Of the bus's own exchanges it is one topic that the user may not
// write to.
func (p *publisher) noteRefusal(exchange string, reason *amqp.Error) {
	if reason.Code != amqp.AccessRefused || exchange == "" || exchange == p.topology.cfg.Exchange || exchange == p.topology.cfg.DeadLetterExchange {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing[exchange] = time.Now()
}

// alone sends a message on a channel of its own.
func (p *publisher) alone(ctx context.Context, o *outgoing) error {
	return p.link.do(ctx, func(s *session, _ *amqp.Channel) error {
		l, err := openLane(s, p.link.background)
		if err != nil {
			return err
		}
		watched := make(chan struct{})
		go func() { defer close(watched); l.watch() }()
		defer func() { _ = l.ch.Close(); <-watched }()
		f, err := l.launch(ctx, o, p.nextTag)
		if err == nil {
			err = f.landed(ctx, o)
		}
		if errors.Is(err, errLost) {
			<-l.gone
			if reason := l.refusal(); reason != nil {
				p.noteRefusal(o.exchange, reason)
				return fmt.Errorf("%w: the broker refuses the message: %w", bus.ErrInvalid, reason)
			}
		}
		return err
	})
}
