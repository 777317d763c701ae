package connect

import (
	"errors"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// errSlow reports a client that takes less than it is sent.
var errSlow = errors.New("what waits to be sent is more than the client's share")

// outgoing is what waits to be sent on a connection, bounded in bytes. Nothing runs while nothing waits: the first who sends starts the
// goroutine that writes.
type outgoing struct {
	conn    *websocket.Conn
	most    int           // bytes
	timeout time.Duration // of one write
	failed  func(err error)
	sent    func(frames int)

	mu      sync.Mutex
	frames  []outFrame
	bytes   int
	writing bool
	closed  bool
	room    chan struct{} // closed when something was sent, nil while nobody waits for it
	idle    chan struct{} // closed when nothing waits any more; nil while nobody waits for it
}

type outFrame struct {
	kind    int // websocket.TextMessage, BinaryMessage or PingMessage
	data    []byte
	placed  func() // called when it is among what waits, and before it can be sent; nil: nothing
	written func() // called when the operating system has it; nil: nothing
}

// put has a frame sent after all that wait. errSlow: there is no room, unless nothing waits at all: one frame may be as large as it is.
func (o *outgoing) put(f outFrame) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return websocket.ErrCloseSent
	}
	if o.bytes > 0 && o.bytes+len(f.data) > o.most {
		return errSlow
	}
	if f.placed != nil {
		f.placed()
		f.placed = nil // it holds the request, which is answered
	}
	o.frames = append(o.frames, f)
	o.bytes += len(f.data)
	if !o.writing {
		o.writing = true
		go o.write()
	}
	return nil
}

// putPatiently waits for room until done is closed. It reports whether the frame will be sent.
func (o *outgoing) putPatiently(f outFrame, done <-chan struct{}) bool {
	for {
		err := o.put(f)
		if !errors.Is(err, errSlow) {
			return err == nil
		}
		select {
		case <-o.roomier():
		case <-done:
			return false
		}
	}
}

// roomier is closed when there is more room than now.
func (o *outgoing) roomier() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.room == nil {
		o.room = make(chan struct{})
		if !o.writing { // it was sent meanwhile
			close(o.room)
			room := o.room
			o.room = nil
			return room
		}
	}
	return o.room
}

// write sends until nothing waits.
func (o *outgoing) write() {
	for {
		o.mu.Lock()
		if len(o.frames) == 0 || o.closed {
			o.writing = false
			o.frames, o.bytes = nil, 0 // an idle connection keeps no room
			o.signal()
			if o.idle != nil {
				close(o.idle)
				o.idle = nil
			}
			o.mu.Unlock()
			return
		}
		batch := o.frames
		o.frames = nil
		o.mu.Unlock()
		for i := range batch {
			f := batch[i]
			batch[i] = outFrame{}
			_ = o.conn.SetWriteDeadline(time.Now().Add(o.timeout))
			if err := o.conn.WriteMessage(f.kind, f.data); err != nil {
				o.close()
				o.failed(err)
				break
			}
			if f.written != nil {
				f.written()
			}
			o.sent(1)
			o.mu.Lock()
			o.bytes -= len(f.data)
			o.signal()
			o.mu.Unlock()
		}
	}
}

// signal tells who waits for room; the lock is held.
func (o *outgoing) signal() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}

// drained is closed when nothing waits to be sent.
func (o *outgoing) drained() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.idle == nil {
		o.idle = make(chan struct{})
		if !o.writing {
			close(o.idle)
			idle := o.idle
			o.idle = nil
			return idle
		}
	}
	return o.idle
}

// close forgets what waits, and takes nothing more.
func (o *outgoing) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.frames, o.bytes = nil, 0
	o.signal()
}
