package rabbitbus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

const (
	// The store is read in windows of so many letters: what a window holds may be in this process's memory at once, since
	// amqp091 reads all that the broker sends. A window is made for windowBytes of letters as large as the largest yet.
	// A quorum queue mixes up more than 32 that are given back at once (RabbitMQ 3.10: the order of an Erlang map).
	maxWindow   = 32
	windowBytes = 8 << 20
	// letterPatience is how long nothing may come before the broker is asked whether anything is left.
	letterPatience = 100 * time.Millisecond
)

// Letters opens the dead-letter store, on a connection of the reading's own: a store without a leader answers late, and ends the connection that
// has asked. While it is read, an exclusive queue "{store}.reader" keeps other nodes from reading; the broker removes it with the connection of a
// reader that dies. The broker's consumer_timeout, 30 minutes unless it is changed, bounds a reading.
func (d *Driver) Letters(ctx context.Context) (bus.Letters, error) {
	select {
	case d.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: another reader is at work on the dead letters: %w", bus.ErrUnavailable, context.Cause(ctx))
	case <-d.consuming.ctx.Done():
		return nil, bus.ErrClosed
	}
	own, leave, err := d.connectReader(ctx)
	if err != nil {
		<-d.reading
		return nil, fmt.Errorf("open the dead-letter store: %w", err)
	}
	l, err := d.openLetters(ctx, own)
	if err != nil {
		leave()
		return nil, fmt.Errorf("open the dead-letter store: %w", err)
	}
	l.leave = leave
	return l, nil
}

// connectReader begins to connect for a reading, when the store has been declared. The connection ends with leave, or with the driver.
func (d *Driver) connectReader(ctx context.Context) (own *link, leave func(), err error) {
	if _, err := d.consuming.wait(ctx); err != nil {
		return nil, nil, err
	}
	own = newLink(d.cfg, "letters", rand.IntN(len(d.cfg.URLs)), func(context.Context, *session, *amqp.Channel) error { return nil }) //nolint:gosec // spreads connections
	left := make(chan struct{})
	if !d.consuming.background(func() { //nolint:contextcheck // it ends what lives as long as the reading, and not as the call that begins it
		select {
		case <-left:
		case <-d.consuming.ctx.Done():
		}
		soon, cancel := context.WithTimeout(context.Background(), socketFlushTimeout)
		defer cancel()
		own.close(soon)
		<-d.reading
	}) {
		return nil, nil, bus.ErrClosed
	}
	own.start()
	return own, sync.OnceFunc(func() { close(left) }), nil
}

// openLetters takes the place of the one reader, waiting for it while ctx lasts.
func (d *Driver) openLetters(ctx context.Context, own *link) (*letters, error) {
	pause := &backoff{first: 20 * time.Millisecond, most: 500 * time.Millisecond}
	for {
		opened := make(chan *letters, 1)
		err := own.do(ctx, func(s *session, admin *amqp.Channel) error {
			l, err := d.beginReading(own, s, admin)
			if err == nil && ctx.Err() != nil { // nobody waits for it any more
				_ = l.ch.Close()
				_, err = admin.QueueDelete(d.topology.readerName(), false, false, false)
				return err
			}
			opened <- l
			return err
		})
		switch {
		case err == nil:
			select {
			case l := <-opened:
				return l, nil
			default:
				return nil, fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
			}
		case errors.Is(err, errLost): // do waits for the next connection
		case answered(err, amqp.NotFound):
			return nil, fmt.Errorf("%w: the queue %q was deleted; it is declared again with the next connection: %w",
				bus.ErrUnavailable, d.topology.storeName(), err)
		case !answered(err, amqp.ResourceLocked):
			return nil, err
		}
		if pause.sleep(ctx) != nil {
			return nil, fmt.Errorf("%w: another reader is at work on the dead letters: %w", bus.ErrUnavailable, context.Cause(ctx))
		}
	}
}

func (d *Driver) beginReading(own *link, s *session, admin *amqp.Channel) (*letters, error) {
	if _, err := admin.QueueDeclare(d.topology.readerName(), false, false, true, false, nil); err != nil {
		return nil, err
	}
	ch, err := s.conn.Channel()
	if err != nil {
		return nil, err
	}
	l := &letters{d: d, link: own, s: s, ch: ch}
	if err := l.begin(); err != nil {
		_, _ = admin.QueueDelete(d.topology.readerName(), false, false, false)
		return nil, err
	}
	return l, nil
}

// letters is one reading of the store. Letters stay unacknowledged, so that they do not come twice, until they are given
// back all together and in order by Close.
type letters struct {
	d     *Driver
	link  *link
	s     *session
	ch    *amqp.Channel
	count int64
	read  int64
	leave func()

	windows    int // opened so far, the number of the present one
	window     int // its size
	inWindow   int // received in it
	tag        string
	deliveries <-chan amqp.Delivery
	pending    []amqp.Delivery // received when the window ended
	largest    int             // bytes of the largest letter yet
	places     []*place

	mu       sync.Mutex
	open     int      // the window that is being read; 0: none
	deferred []uint64 // acknowledged in it
}

// place is a letter's place in the store.
type place struct {
	tag    uint64
	window int
	gone   bool // it was acknowledged; guarded by letters.mu
}

// begin learns how many letters there are.
//
// A quorum queue that is asked says 0 while it has no leader, as after a restart, and when it needs more than 250 ms for the answer
// (rabbit_quorum_queue:stat, RabbitMQ 3.10). So it is asked for the first letters, which only its leader gives: for two, because a new leader
// learns after the first request that readers are gone who held letters. Those are older, and come behind the first one then: given back, it
// would be behind all that was ever given back.
func (l *letters) begin() error {
	name := l.d.topology.storeName()
	if l.d.cfg.QueueType != Quorum {
		store, err := l.ch.QueueDeclarePassive(name, true, false, false, false, nil)
		l.count = int64(store.Messages)
		return err
	}
	l.windows = 1 // the two are one
	for range 2 {
		raw, ok, err := l.ch.Get(name, false)
		if err != nil {
			return err
		}
		if ok {
			l.keep(raw)
			l.pending = append(l.pending, raw)
			l.count = int64(len(l.pending)) + int64(raw.MessageCount)
		}
	}
	return nil
}

func (l *letters) Count() int64 { return l.count }

func (l *letters) Next(ctx context.Context) (bus.Delivery, error) {
	if l.read >= l.count {
		return nil, io.EOF
	}
	for empty := false; ; {
		if len(l.pending) > 0 {
			raw := l.pending[0]
			l.pending = l.pending[1:]
			return l.hand(raw), nil
		}
		if l.deliveries == nil || l.inWindow >= l.window {
			if err := l.nextWindow(ctx); err != nil {
				return nil, l.broken(ctx, err)
			}
			continue
		}
		raw, ok, err := l.receive(ctx)
		switch {
		case err != nil:
			return nil, err
		case ok:
			return l.hand(raw), nil
		case empty: // some expired meanwhile
			return nil, io.EOF
		}
		if empty, err = l.nothingLeft(ctx); err != nil {
			return nil, l.broken(ctx, err)
		}
	}
}

// receive waits a while for a letter; false: none came.
func (l *letters) receive(ctx context.Context) (raw amqp.Delivery, ok bool, err error) {
	idle := time.NewTimer(letterPatience)
	defer idle.Stop()
	select {
	case raw, ok = <-l.deliveries:
		if !ok {
			return raw, false, l.broken(ctx, errLost)
		}
		l.keep(raw)
		return raw, true, nil
	case <-idle.C:
		return raw, false, nil
	case <-ctx.Done():
		return raw, false, l.broken(ctx, context.Cause(ctx))
	}
}

// nothingLeft asks, on the channel that letters come on, whether the store has more. When a quorum queue says that it has not, it is asked for
// a letter to be sure: see begin.
func (l *letters) nothingLeft(ctx context.Context) (bool, error) {
	ready, late := make(chan int, 1), make(chan amqp.Delivery, 1)
	err := l.link.do(ctx, func(*session, *amqp.Channel) error {
		store, err := l.ch.QueueDeclarePassive(l.d.topology.storeName(), true, false, false, false, nil)
		if err == nil && store.Messages == 0 && l.d.cfg.QueueType == Quorum {
			var raw amqp.Delivery
			var ok bool
			if raw, ok, err = l.ch.Get(l.d.topology.storeName(), false); ok {
				late <- raw
			}
		}
		ready <- store.Messages
		return err
	})
	if err != nil {
		return false, err
	}
	select {
	case raw := <-late:
		l.keep(raw)
		l.pending = append(l.pending, raw)
		return false, nil
	default:
		return <-ready == 0, nil
	}
}

// nextWindow has the broker send a further window of letters: a consumer of its own for each, because a consumer's
// prefetch cannot be raised, and the letters of earlier ones are not settled yet.
func (l *letters) nextWindow(ctx context.Context) error {
	if err := l.endWindow(ctx); err != nil {
		return err
	}
	size := min(max(windowBytes/max(l.largest, 1), 1), maxWindow)
	tag := fmt.Sprintf("%s.%d", l.d.topology.readerName(), l.windows+1)
	began := make(chan (<-chan amqp.Delivery), 1)
	err := l.link.do(ctx, func(*session, *amqp.Channel) error {
		if err := l.ch.Qos(size, 0, false); err != nil {
			return err
		}
		deliveries, err := l.ch.Consume(l.d.topology.storeName(), tag, false, false, false, false, nil)
		began <- deliveries
		return err
	})
	if err != nil {
		return err
	}
	l.windows++
	l.mu.Lock()
	l.open = l.windows
	l.mu.Unlock()
	l.window, l.inWindow, l.tag, l.deliveries = size, 0, tag, <-began
	return nil
}

// endWindow stops the present consumer; what it was sent stays with the channel.
func (l *letters) endWindow(ctx context.Context) error {
	if l.deliveries == nil {
		return nil
	}
	if err := l.link.do(ctx, func(*session, *amqp.Channel) error { return l.ch.Cancel(l.tag, false) }); err != nil {
		return err
	}
	for raw := range l.deliveries {
		l.keep(raw)
		l.pending = append(l.pending, raw)
	}
	l.deliveries = nil
	return l.acknowledge()
}

// ack takes a letter out of the store: in the window that is being read, when that ends. Before, it would make room for
// another delivery, and one that comes after the consumer was canceled is lost to this reading.
func (l *letters) ack(p *place) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.gone = true
	if p.window == l.open {
		l.deferred = append(l.deferred, p.tag)
		return nil
	}
	return l.ch.Ack(p.tag, false)
}

// acknowledge sends what ack has gathered.
func (l *letters) acknowledge() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = 0
	for len(l.deferred) > 0 {
		if err := l.ch.Ack(l.deferred[0], false); err != nil {
			return fmt.Errorf("%w: %s", errLost, err.Error())
		}
		l.deferred = l.deferred[1:]
	}
	return nil
}

// unsaid is how many letters were acknowledged and the broker was not told.
func (l *letters) unsaid() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.deferred)
}

// keep notes the place of a letter that came.
func (l *letters) keep(raw amqp.Delivery) {
	l.inWindow++
	l.largest = max(l.largest, len(raw.Body))
	l.places = append(l.places, &place{tag: raw.DeliveryTag, window: l.windows})
}

// hand makes a delivery of the next letter, for which keep has made a place.
func (l *letters) hand(raw amqp.Delivery) bus.Delivery {
	at := l.places[l.read]
	l.read++
	m, attempt := fromDelivery(&raw)
	return &letter{of: l, place: at, message: m, attempt: attempt}
}

// broken says why a reading cannot go on.
func (l *letters) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("read the dead-letter store: %w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
	return fmt.Errorf("%w: the reading of the dead-letter store broke off, and what was not acknowledged is in it still; read again: %s",
		bus.ErrUnavailable, err.Error())
}

// letter is a dead letter in a reader's hands.
type letter struct {
	of      *letters
	place   *place
	message *bus.Message
	attempt int
	settled atomic.Bool
}

func (l *letter) Message() *bus.Message { return l.message }
func (l *letter) Attempt() int          { return l.attempt }

// Ack takes the letter out of the store, at the latest when the reading is closed.
func (l *letter) Ack() error {
	if l.settled.Swap(true) {
		return nil
	}
	if err := l.of.ack(l.place); err != nil {
		return fmt.Errorf("%w: the reading of the dead-letter store broke off; letter %q is in it still: %w", bus.ErrUnavailable, l.message.ID, err)
	}
	return nil
}

// Requeue leaves the letter where it is: Close gives it back together with the others.
func (l *letter) Requeue() error {
	l.settled.Store(true)
	return nil
}

func (l *letter) Retry(context.Context, time.Duration) error {
	return fmt.Errorf("a dead letter is not retried in its store; redeliver it to its queue: %w", errors.ErrUnsupported)
}
