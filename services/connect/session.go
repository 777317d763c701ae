package connect

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
)

// saltBytes is the length of the salt of a session's endpoint ids.
const saltBytes = 32

func newSalt() []byte {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // it never fails
	return salt
}

// An ending is why a connection ends.
type ending struct {
	code   int
	reason string
	told   events.SessionDisconnectedReason
	stays  bool // the session waits for its client
	silent bool // somebody else tells of it

	leftover bool // what waits in its queue is nobody's any more
}

func away(code int, reason string, told events.SessionDisconnectedReason) ending {
	return ending{code: code, reason: reason, told: told, stays: true}
}

// A session is one connection, on this node.
//
// Its own goroutine reads; another hands out events; one writes while there is something to write, and each call has one. The first reason
// to end ends all of them.
type session struct {
	s       *Service
	id      string
	record  record // as this connection has written it
	autoAck bool   // what is written counts as received

	conn *websocket.Conn
	out  outgoing
	life context.Context //nolint:containedctx // the connection's
	end  context.CancelFunc

	manifest atomic.Pointer[manifest] // nil: nothing may be called yet
	heard    atomic.Int64             // when something came, in Unix nanoseconds
	pinged   time.Time                // the sweep's
	renewed  time.Time                // renewAll's

	before       record // what it was, until then
	emptied      bool   // its queue was given up for the connection
	telling      sync.Mutex
	greeted      bool // telling guards it: the client has had its first message
	revoked      bool // telling guards it: the session has ended, and the client is still connected
	consumer     bus.Consumer
	delivering   sync.WaitGroup
	returnEvents func() // giveBack, once
	calls        calls
	pending      pending
	rate         bucket // the reader's

	mu    sync.Mutex
	ended *ending

	answered atomic.Bool   // the client has sent a close frame
	read     chan struct{} // closed when nothing more is read
	gone     chan struct{} // closed when the connection is over and its events are back in the queue
}

func (s *Service) newSession(id string) *session {
	v := &session{s: s, id: id, read: make(chan struct{}), gone: make(chan struct{})}
	v.life, v.end = context.WithCancel(context.Background())
	v.returnEvents = sync.OnceFunc(v.giveBack)
	return v
}

// attach gives the session its connection, unless it was ended meanwhile.
func (v *session) attach(conn *websocket.Conn) bool {
	cfg := &v.s.cfg
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended != nil {
		return false
	}
	v.conn = conn
	v.out = outgoing{conn: conn, most: cfg.MaxOutgoingBytes, timeout: cfg.WriteTimeout, failed: v.writeFailed, sent: v.s.meter.out}
	conn.SetReadLimit(int64(cfg.MaxMessageBytes))
	v.hear()
	conn.SetPongHandler(func(string) error {
		v.hear()
		_, err := v.pay()
		return err
	})
	conn.SetPingHandler(func(data string) error {
		v.hear()
		if ok, err := v.pay(); !ok { // those over the rate are not answered: a client that does not read would fill the memory with pongs
			return err
		}
		return v.put(outFrame{kind: websocket.PongMessage, data: []byte(data)})
	})
	conn.SetCloseHandler(func(code int, _ string) error {
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(goodbye))
		return nil
	})
	v.pinged, v.renewed = time.Now(), time.Now()
	v.delivering.Add(1) // deliver is about to begin
	return true
}

// works reports whether the connection has begun, and has not ended.
func (v *session) works() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.conn != nil && v.ended == nil
}

// quiet waits until no call is under way and nothing waits to be sent.
func (v *session) quiet(ctx context.Context) {
	if !v.works() {
		return
	}
	for _, wait := range []func() <-chan struct{}{v.calls.through, v.out.drained} {
		select {
		case <-wait():
		case <-v.gone:
			return
		case <-ctx.Done():
			return
		}
	}
}

// hear notes that the client is there.
func (v *session) hear() {
	now := time.Now()
	v.heard.Store(now.UnixNano())
	_ = v.conn.SetReadDeadline(now.Add(2 * v.s.cfg.PingInterval))
}

// put sends a frame, or ends the connection of a client that is too slow.
func (v *session) put(f outFrame) error {
	err := v.out.put(f)
	if errors.Is(err, errSlow) {
		v.s.meter.shed(v.life, "outgoing")
		v.close(away(CloseTryAgain, "you read too slowly: reconnect", events.SessionDisconnectedReasonError))
	}
	return err
}

func (v *session) text(message any) error {
	return v.put(outFrame{kind: websocket.TextMessage, data: encode(message)})
}

// writeFailed is called by who writes.
func (v *session) writeFailed(err error) {
	if timeout, is := errors.AsType[net.Error](err); is && timeout.Timeout() {
		v.s.meter.shed(v.life, "write_timeout")
		v.close(away(CloseTryAgain, "you read too slowly: reconnect", events.SessionDisconnectedReasonTimeout))
		return
	}
	v.close(away(0, "", events.SessionDisconnectedReasonError))
}

// close ends the connection for the first reason there is. It does not wait: what is left to do has a time of its own.
func (v *session) close(e ending) {
	v.mu.Lock()
	first, conn := v.ended == nil, v.conn
	if first {
		v.ended = &e
	}
	v.mu.Unlock()
	if !first {
		return
	}
	v.end()
	if conn != nil {
		v.s.background.Go(func() { v.hangUp(e) })
	}
}

// goodbye bounds how long a client is given to take the reason why its connection ends.
const goodbye = time.Second

// hangUp tells the client why, and closes the connection. What the client has not acknowledged is back in its queue by then, in its place:
// it may be quick to connect elsewhere.
func (v *session) hangUp(e ending) {
	defer v.conn.Close() //nolint:errcheck // it is over in any case
	if e.code == 0 {
		return
	}
	if e.stays {
		v.returnEvents()
	}
	deadline := time.Now().Add(goodbye)
	_ = v.conn.SetReadDeadline(deadline)
	_ = v.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(e.code, e.reason), deadline)
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-v.read:
	case <-timer.C:
		return
	}
	if !v.answered.Load() {
		// A connection that is closed with something unread is reset, and the client would not read the reason.
		_, _ = io.CopyN(io.Discard, v.conn.NetConn(), lingerBytes)
	}
}

// lingerBytes bounds what is read of a client that sends on.
const lingerBytes = 1 << 20

// why is the reason for which the connection ends.
func (v *session) why() ending {
	v.mu.Lock()
	defer v.mu.Unlock()
	return *v.ended
}

// run reads until the connection ends, and clears up.
func (v *session) run() {
	err := v.takeAll()
	_, answered := errors.AsType[*websocket.CloseError](err)
	v.answered.Store(answered)
	close(v.read)
	v.close(v.endingOf(err))
	v.out.close()
	v.clearUp()
}

// endingOf is why reading ended.
func (v *session) endingOf(err error) ending {
	if e, is := errors.AsType[*websocket.CloseError](err); is {
		switch e.Code {
		case CloseNormal, CloseGoingAway, websocket.CloseNoStatusReceived:
			return away(0, "", events.SessionDisconnectedReasonClosed)
		case CloseMalformed:
			return away(CloseMalformed, "a text message is not UTF-8", events.SessionDisconnectedReasonError)
		default:
			return away(0, "", events.SessionDisconnectedReasonClosed)
		}
	}
	if timeout, is := errors.AsType[net.Error](err); is && timeout.Timeout() {
		return away(CloseUnanswered, "nothing was heard of you: reconnect", events.SessionDisconnectedReasonTimeout)
	}
	switch {
	case errors.Is(err, websocket.ErrReadLimit): // the library has told the client
		v.s.meter.refused(v.life, "too_big")
		return away(CloseTooBig, "a message is too long", events.SessionDisconnectedReasonError)
	case errors.Is(err, errFrame):
		v.s.meter.refused(v.life, "malformed")
		return away(CloseMalformed, reasonOf(err), events.SessionDisconnectedReasonError)
	case errors.Is(err, errFlood):
		v.s.meter.refused(v.life, "flood")
		return away(ClosePolicy, "you send more than your rate, and do not stop", events.SessionDisconnectedReasonError)
	}
	return away(0, "", events.SessionDisconnectedReasonError)
}

// maxReason is what a close frame has room for.
const maxReason = 120

func reasonOf(err error) string {
	reason := err.Error()
	if len(reason) > maxReason {
		reason = reason[:maxReason]
		for len(reason) > 0 && reason[len(reason)-1] >= 0x80 { // no half of a character
			reason = reason[:len(reason)-1]
		}
	}
	return reason
}

// clearUp gives back what the client did not acknowledge, and tells that the connection has ended.
func (v *session) clearUp() {
	defer close(v.gone)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.life), v.s.cfg.HandshakeTimeout)
	defer cancel()
	v.returnEvents()
	v.calls.wait()
	v.s.held.remove(v)
	v.s.disconnected(ctx, v, v.why())
}

// giveBack, when the connection has ended, ends the flow of events before it puts back those that are pending: otherwise they would come again, to this connection.
func (v *session) giveBack() {
	v.delivering.Wait()
	if v.consumer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.life), giveBackTimeout)
	defer cancel()
	if err := v.consumer.Close(ctx); err != nil && !errors.Is(err, bus.ErrClosed) {
		v.s.cfg.Logger.WarnContext(ctx, "the queue of a session goes on to be read until the broker notices", slog.String("session", v.id), slog.Any("error", err))
	}
	v.pending.giveBack()
}

// giveBackTimeout bounds the wait for a broker that is away.
const giveBackTimeout = 2 * time.Second
