package rabbitbus

import (
	"context"
	"fmt"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// lane is an open channel in confirm mode.
type lane struct {
	s       *session
	ch      *amqp.Channel
	returns chan amqp.Return
	closes  chan *amqp.Error
	barrier chan chan struct{}

	gone   chan struct{} // closed when the channel is
	reason *amqp.Error   // why, if the broker said so; read after gone

	mu       sync.Mutex
	awaiting map[string]*string // by return tag: set to the broker's words when the message came back
}

func openLane(s *session) (*lane, error) {
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, classify(s, err)
	}
	l := &lane{s: s, ch: ch, barrier: make(chan chan struct{}), gone: make(chan struct{}), awaiting: map[string]*string{}}
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
	default:
		return l.ch.IsClosed()
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
	if o.mandatory {
		f.tag, f.returned = nextTag(), new(string)
		o.publishing.Headers[headerReturnTag] = f.tag
		l.mu.Lock()
		l.awaiting[f.tag] = f.returned
		l.mu.Unlock()
	}
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

// over stops waiting for a return.
func (f flight) over() {
	if f.returned == nil {
		return
	}
	f.lane.mu.Lock()
	defer f.lane.mu.Unlock()
	delete(f.lane.awaiting, f.tag)
}

// landed waits until the message is confirmed or ctx ends. errLost says that the channel went first.
func (f flight) landed(ctx context.Context, o *outgoing) error {
	defer f.over()
	select {
	case <-f.confirmation.Done():
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", bus.ErrNotConfirmed, context.Cause(ctx))
	}
	if !f.confirmation.Acked() {
		if f.lane.ended() {
			return errLost
		}
		return fmt.Errorf("%w: it refused it (nack): a queue bound to exchange %q for %q is full, or its node failed", bus.ErrNotConfirmed, o.exchange, o.key)
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
