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

// send writes a message and waits until it is confirmed or ctx ends. errLost says that the channel went first.
func (l *lane) send(ctx context.Context, o *outgoing, tag func() string, sent *bool) error {
	var returned string
	if o.mandatory {
		t := tag()
		o.publishing.Headers[headerReturnTag] = t
		l.mu.Lock()
		l.awaiting[t] = &returned
		l.mu.Unlock()
		defer func() {
			l.mu.Lock()
			delete(l.awaiting, t)
			l.mu.Unlock()
		}()
	}
	if err := l.s.socket.room(ctx, len(o.publishing.Body)); err != nil {
		return err
	}
	confirmation, err := l.ch.PublishWithDeferredConfirm(o.exchange, o.key, o.mandatory, false, o.publishing)
	l.s.socket.release(len(o.publishing.Body))
	if err != nil {
		return fmt.Errorf("%w: %s", errLost, err.Error())
	}
	*sent = true
	select {
	case <-confirmation.Done():
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", bus.ErrNotConfirmed, context.Cause(ctx))
	}
	if !confirmation.Acked() {
		if l.ended() {
			return errLost
		}
		return fmt.Errorf("%w: it refused it (nack): a queue bound to exchange %q for %q is full, or its node failed", bus.ErrNotConfirmed, o.exchange, o.key)
	}
	if !o.mandatory {
		return nil
	}
	return l.checkReturned(o, &returned)
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
