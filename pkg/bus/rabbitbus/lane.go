package rabbitbus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// laneLife is how long a channel is used at least, whatever the broker answers on it.
const laneLife = 250 * time.Millisecond

// errNacked says that the broker did not take a message. It never leaves the package.
var errNacked = errors.New("it refused it (nack)")

// lane is an open channel in confirm mode.
type lane struct {
	s       *session
	ch      *amqp.Channel
	returns chan amqp.Return
	closes  chan *amqp.Error
	barrier chan chan struct{}

	background func(func()) bool // runs the closing

	gone   chan struct{} // closed when the channel is
	reason *amqp.Error   // why, if the broker said so; read after gone
	spent  chan struct{} // closed when nothing more is to be sent here
	opened time.Time

	mu       sync.Mutex
	awaiting map[string]*string // by return tag: set to the broker's words when the message came back
	flights  int                // that somebody waits for
	retired  bool
}

// openLane opens a channel. background runs its closing, on a goroutine that somebody waits for.
func openLane(s *session, background func(func()) bool) (*lane, error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, classify(s, err)
	}
	l := &lane{s: s, ch: ch, background: background, barrier: make(chan chan struct{}), gone: make(chan struct{}),
		spent: make(chan struct{}), opened: time.Now(), awaiting: map[string]*string{}}
	l.closes = ch.NotifyClose(make(chan *amqp.Error, 1))
	// Unbuffered, so that a return has been received here before amqp091 goes on to read the confirmation after it.
	l.returns = ch.NotifyReturn(make(chan amqp.Return))
	if err := ch.Confirm(false); err != nil {
		_ = ch.Close()
		return nil, classify(s, err)
	}
	return l, nil
}

// watch notes returned messages until the channel is closed.
func (l *lane) watch() {
	defer close(l.gone)
	for {
		select {
		case r, ok := <-l.returns:
			if !ok {
				l.returns = nil
				continue
			}
			l.note(r)
		case b := <-l.barrier:
			close(b)
		case l.reason = <-l.closes:
			return
		}
	}
}

// ended reports whether the channel is of no use any more.
func (l *lane) ended() bool {
	select {
	case <-l.gone:
		return true
	case <-l.spent:
		return true
	default:
		return l.ch.IsClosed()
	}
}

// retire has another channel opened in place of this one, which is closed when all that is under way on it has landed. A
// channel that was just opened is kept: a queue that is full must not cost a channel for each message.
func (l *lane) retire() {
	if time.Since(l.opened) >= laneLife {
		l.stop()
	}
}

// stop is retire at any age.
func (l *lane) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.retired {
		return
	}
	l.retired = true
	close(l.spent)
	l.closeLanded()
}

// closeLanded closes a retired channel that nobody waits for. The caller holds mu.
func (l *lane) closeLanded() {
	if l.retired && l.flights == 0 {
		l.background(func() { _ = l.ch.Close() })
	}
}

func (l *lane) note(r amqp.Return) {
	tag, _ := r.Headers[headerReturnTag].(string)
	l.mu.Lock()
	defer l.mu.Unlock()
	if words, found := l.awaiting[tag]; found {
		*words = r.ReplyText
		if *words == "" {
			*words = "returned"
		}
	}
}

// refusal is the broker's reason for closing this channel alone; nil if the connection went, or it was closed here.
func (l *lane) refusal() *amqp.Error {
	if l.reason != nil && isChannelError(l.reason.Code) && l.reason.Server && !l.s.conn.IsClosed() {
		return l.reason
	}
	return nil
}

// A flight is a message that was written and is not confirmed yet.
type flight struct {
	lane         *lane
	confirmation *amqp.DeferredConfirmation
	tag          string  // of a mandatory message, for its return
	returned     *string // where its return is noted
}

// launch writes a message. errLost says that the channel is gone.
func (l *lane) launch(ctx context.Context, o *outgoing, nextTag func() string) (f flight, err error) {
	f.lane = l
	l.mu.Lock()
	if l.retired {
		l.mu.Unlock()
		return f, errLost
	}
	l.flights++
	if o.mandatory {
		f.tag, f.returned = nextTag(), new(string)
		o.publishing.Headers[headerReturnTag] = f.tag
		l.awaiting[f.tag] = f.returned
	}
	l.mu.Unlock()
	if err = l.s.socket.room(ctx, len(o.publishing.Body)); err == nil {
		f.confirmation, err = l.ch.PublishWithDeferredConfirm(o.exchange, o.key, o.mandatory, false, o.publishing)
		l.s.socket.release(len(o.publishing.Body))
		if err != nil {
			err = fmt.Errorf("%w: %s", errLost, err.Error())
		}
	}
	if err != nil {
		f.over()
	}
	return f, err
}

// over stops waiting for a confirmation and a return.
func (f flight) over() {
	f.lane.mu.Lock()
	defer f.lane.mu.Unlock()
	if f.returned != nil {
		delete(f.lane.awaiting, f.tag)
	}
	f.lane.flights--
	f.lane.closeLanded()
}

// landed waits until the message is confirmed or ctx ends. errLost says that the channel went first, errNacked that the broker did not take it.
func (f flight) landed(ctx context.Context, o *outgoing) error {
	defer f.over()
	select {
	case <-f.confirmation.Done():
	case <-ctx.Done():
		select {
		case <-f.confirmation.Done(): // it was confirmed in time, and only looked at late
			return f.confirmed(o)
		default:
		}
		return fmt.Errorf("%w: %w", bus.ErrNotConfirmed, context.Cause(ctx))
	}
	return f.confirmed(o)
}

// confirmed is what the broker's answer says.
func (f flight) confirmed(o *outgoing) error {
	if !f.confirmation.Acked() {
		if f.lane.ch.IsClosed() {
			return errLost
		}
		return fmt.Errorf("%w: a queue bound to exchange %q for %q is full, or its node failed", errNacked, o.exchange, o.key)
	}
	if f.returned == nil {
		return nil
	}
	return f.lane.checkReturned(o, f.returned)
}

// checkReturned answers for a confirmed mandatory message. Its return came before its confirmation, so whoever watches
// has received it, and has noted it once the barrier is passed.
func (l *lane) checkReturned(o *outgoing, returned *string) error {
	b := make(chan struct{})
	select {
	case l.barrier <- b:
		<-b
	case <-l.gone:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if *returned != "" {
		return fmt.Errorf("%w: exchange %q, key %q: %s", bus.ErrUnroutable, o.exchange, o.key, *returned)
	}
	return nil
}
