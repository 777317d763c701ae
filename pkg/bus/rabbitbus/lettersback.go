package rabbitbus

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

const (
	// returnWindows is how many windows are given back before the broker is asked whether they are there: a quorum queue
	// that has more to do than this joins windows, in no order.
	returnWindows = 16
	// returnPatience bounds the wait for the broker to put back what was read. A quorum queue does it after the answer.
	returnPatience = 2 * time.Second
)

// Close gives back what was not acknowledged. It does so also when ctx ends before: the next reader waits for it.
func (l *letters) Close(ctx context.Context) error {
	closed := make(chan error, 1)
	if !l.d.consuming.background(func() {
		defer l.leave()
		closed <- l.end(l.d.consuming.ctx)
	}) {
		l.leave()
		return nil // the broker has given back all
	}
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return fmt.Errorf("close the dead-letter store: %w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
}

func (l *letters) end(ctx context.Context) error {
	broken := l.endWindow(ctx)
	if broken == nil {
		l.giveBack(ctx)
	}
	err := l.link.do(ctx, func(*session, *amqp.Channel) error { return l.ch.Close() })
	if err == nil || l.ch.IsClosed() {
		err = l.unlock(ctx)
	}
	if n := l.unsaid(); n > 0 {
		return fmt.Errorf("%w: the reading of the dead-letter store broke off, and the last %d letters that were settled are in it still: %s",
			bus.ErrUnavailable, n, broken.Error())
	}
	if errors.Is(err, errLost) || errors.Is(err, bus.ErrClosed) {
		return nil // with the connection went the reading
	}
	return wrapf(err, "close the dead-letter store")
}

// giveBack requeues the letters window by window, each at once and after the one before, so that they are in order again.
// A failure is that of the connection: then the broker gives them back by itself.
func (l *letters) giveBack(ctx context.Context) {
	var last *place // of the window, and there still
	var held int64
	windows := 0
	nack := func() bool {
		if l.ch.Nack(last.tag, true, true) != nil {
			return false
		}
		if windows++; windows%returnWindows == 0 {
			l.waitReturned(ctx, held)
		}
		return true
	}
	for _, p := range l.places {
		if last != nil && p.window != last.window {
			if !nack() {
				return
			}
			last = nil
		}
		if l.holds(p) {
			last = p
			held++
		}
	}
	if last != nil && nack() {
		l.waitReturned(ctx, held)
	}
}

func (l *letters) holds(p *place) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !p.gone
}

// waitReturned waits until the store counts what was given back: the next reader must find it.
func (l *letters) waitReturned(ctx context.Context, held int64) {
	ctx, cancel := context.WithTimeout(ctx, returnPatience)
	defer cancel()
	pause := &backoff{first: time.Millisecond, most: 50 * time.Millisecond}
	for {
		store := bus.QueueInfo{Name: l.d.topology.storeName()}
		if err := l.d.inspect(ctx, &store); err != nil || store.Messages >= held || pause.sleep(ctx) != nil {
			return
		}
	}
}

// unlock lets the next reader in.
func (l *letters) unlock(ctx context.Context) error {
	return l.link.do(ctx, func(s *session, admin *amqp.Channel) error {
		if s != l.s {
			return nil // it went with its connection
		}
		_, err := admin.QueueDelete(l.d.topology.readerName(), false, false, false)
		return err
	})
}
