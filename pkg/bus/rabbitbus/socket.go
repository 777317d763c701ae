package rabbitbus

import (
	"context"
	"net"
	"runtime"
	"sync"
	"time"
)

const (
	// socketHighWater is how many bytes may wait to be written before publishers wait too.
	socketHighWater = 1 << 20
	// socketWriteTimeout is how long the broker's host may take no bytes at all before the connection counts as dead.
	// A broker that is short of memory stops reading, says so first, and publishers then stop by themselves: what is
	// bounded here is a host that is gone or stopped.
	socketWriteTimeout = 30 * time.Second
	// socketFlushTimeout is what a closing connection gets to send its last words.
	socketFlushTimeout = 200 * time.Millisecond
)

// socket is a network connection whose Write never waits. amqp091 writes while it holds locks that everything on the
// connection needs, and knows no deadline: were a write to hang, every publisher, acknowledgement and Close would hang
// with it. Here a write goes to memory; one goroutine sends on what has gathered, which also makes one system call of
// many publishers' frames. Those who can wait, wait in room, with their context.
type socket struct {
	net.Conn

	mu       sync.Mutex
	pending  []byte
	reserved int           // bytes of those whom room let go on and who have not written yet
	err      error         // what ended writing
	closing  bool          // Close was called
	drained  chan struct{} // closed when there may be room again; nil while nobody waits

	wake chan struct{} // has one slot: there is something to do
	done chan struct{} // the writer has ended
}

func newSocket(conn net.Conn) *socket {
	s := &socket{Conn: conn, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go s.write()
	return s
}

// Write takes the bytes over. It fails once an earlier write has.
func (s *socket) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	if s.closing {
		return 0, net.ErrClosed
	}
	s.pending = append(s.pending, b...)
	s.signal()
	return len(b), nil
}

// room waits, for as long as ctx lasts, until a message of that size may be written, and sets the room aside until
// release. Without that all who wait would go ahead at once, and what a slow broker does not take would fill the memory.
func (s *socket) room(ctx context.Context, size int) error {
	for {
		s.mu.Lock()
		if len(s.pending)+s.reserved < socketHighWater || s.err != nil || s.closing {
			s.reserved += size
			s.mu.Unlock()
			return nil //nolint:nilerr // an ended socket fails in Write
		}
		if s.drained == nil {
			s.drained = make(chan struct{})
		}
		drained := s.drained
		s.mu.Unlock()
		select {
		case <-drained:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// release gives back what room set aside, when the message was written or will not be.
func (s *socket) release(size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= size
	if s.drained != nil && len(s.pending)+s.reserved < socketHighWater {
		close(s.drained)
		s.drained = nil
	}
}

// Close sends what is pending, if that goes at once, and closes the connection.
func (s *socket) Close() error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		<-s.done
		return nil
	}
	s.closing = true
	s.signal()
	s.mu.Unlock()
	_ = s.SetWriteDeadline(time.Now().Add(socketFlushTimeout)) // also ends a write that hangs
	<-s.done
	return nil
}

// write is the writer. It owns the connection's write side and its closing.
func (s *socket) write() {
	defer close(s.done)
	defer func() { _ = s.Conn.Close() }()
	var spare []byte
	for range s.wake {
		// Who is about to write may do so first: 64 publishers then share a write by 22 instead of by 11, and the broker
		// reads as many at once.
		runtime.Gosched()
		s.mu.Lock()
		batch, closing := s.pending, s.closing
		s.pending = spare[:0]
		if s.drained != nil {
			close(s.drained)
			s.drained = nil
		}
		s.mu.Unlock()
		if err := s.send(batch, closing); err != nil || closing {
			s.fail(err)
			return
		}
		spare = batch
		if cap(spare) > socketHighWater {
			spare = nil // one burst of large messages must not be kept for ever
		}
	}
}

// send writes a batch, within the time that is left to a closing connection or to a silent broker.
func (s *socket) send(batch []byte, closing bool) error {
	if len(batch) == 0 {
		return nil
	}
	timeout := socketWriteTimeout
	if closing {
		timeout = socketFlushTimeout
	}
	if err := s.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	// Close may have set its shorter deadline just before ours.
	s.mu.Lock()
	if s.closing && !closing {
		_ = s.SetWriteDeadline(time.Now().Add(socketFlushTimeout))
	}
	s.mu.Unlock()
	_, err := s.Conn.Write(batch)
	return err
}

// fail ends writing, and lets those go who wait for room.
func (s *socket) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = net.ErrClosed
	}
	s.err = err
	s.pending = nil
	if s.drained != nil {
		close(s.drained)
		s.drained = nil
	}
}

// signal wakes the writer. The caller holds mu.
func (s *socket) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
