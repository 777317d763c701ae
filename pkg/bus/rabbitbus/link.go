package rabbitbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bannou-mesh/bannou/pkg/bus"
)

// errLost says that the connection or channel went away under a request. It never leaves the package.
var errLost = errors.New("the connection to the broker was lost")

// errConnecting is why there is no connection before the first attempt has ended.
var errConnecting = errors.New("still connecting")

// session is one live connection.
type session struct {
	conn   *amqp.Connection
	socket *socket
	gone   chan struct{} // closed when the connection is

	mu        sync.Mutex
	unblocked chan struct{} // non-nil while the broker refuses publishes; closed when it takes them again
	reason    string        // why it refuses

	// For requests, for such as are not answered, and for questions whether something is there; used by the holder of link.turn.
	admin, unanswered, questions *amqp.Channel
}

// blocked returns the channel that is closed when the broker takes messages again, and why it does not; nil if it does.
func (s *session) blocked() (<-chan struct{}, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unblocked, s.reason
}

func (s *session) setBlocked(b amqp.Blocking) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unblocked != nil {
		close(s.unblocked)
		s.unblocked = nil
	}
	if b.Active {
		s.unblocked, s.reason = make(chan struct{}), b.Reason
	}
}

// link keeps one connection to the broker: it connects, watches, and connects again, for as long as it is not closed.
type link struct {
	cfg   *Config
	role  string // "publish" or "consume"
	next  int    // the address to try next; run's own
	log   *slog.Logger
	setup func(ctx context.Context, s *session, admin *amqp.Channel) error // after connecting, before use

	ctx    context.Context //nolint:containedctx // a life of its own, not a call's: ends with close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	turn   chan struct{} // held for the time of a request: a channel answers one at a time

	mu      sync.Mutex
	current *session      // nil while there is none
	failure error         // why there is none
	changed chan struct{} // closed and replaced when current changes
	closed  bool
}

// newLink makes a link that tries the addresses in their order, beginning with this one.
func newLink(cfg *Config, role string, first int, setup func(context.Context, *session, *amqp.Channel) error) *link {
	ctx, cancel := context.WithCancel(context.Background())
	return &link{
		cfg: cfg, role: role, next: first, setup: setup,
		log: cfg.Logger.With("connection", role),
		ctx: ctx, cancel: cancel,
		turn:    make(chan struct{}, 1),
		changed: make(chan struct{}),
		failure: errConnecting,
	}
}

// start begins to connect.
func (l *link) start() { l.wg.Go(l.run) }

// run connects for ever. Another address is tried at once; only when all have failed in a row there is a pause.
func (l *link) run() {
	pause := &backoff{first: l.cfg.RetryDelay, most: l.cfg.MaxRetryDelay}
	for failed := 0; l.ctx.Err() == nil; {
		url := l.address()
		s, err := l.connect(url)
		if err != nil {
			l.set(nil, err)
			l.log.Warn("cannot connect to the broker", "url", redactURL(url), "error", err)
			if failed++; failed%len(l.cfg.URLs) == 0 {
				_ = pause.sleep(l.ctx)
			}
			continue
		}
		failed = 0
		up := time.Now()
		l.log.Info("connected to the broker", "url", redactURL(url))
		l.set(s, nil)
		lost := l.watch(s)
		l.set(nil, lost)
		if l.ctx.Err() != nil {
			return
		}
		l.log.Warn("lost the broker", "url", redactURL(url), "error", lost)
		// A connection that lasted is worth an attempt at once; one that breaks again and again is not.
		if time.Since(up) > l.cfg.RetryDelay {
			pause.reset()
		} else {
			_ = pause.sleep(l.ctx)
		}
	}
}

// address takes the next address.
func (l *link) address() string {
	url := l.cfg.URLs[l.next%len(l.cfg.URLs)]
	l.next++
	return url
}

// connect dials, and prepares the connection for use.
func (l *link) connect(url string) (*session, error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.DialTimeout)
	defer cancel()
	s := &session{gone: make(chan struct{})}
	// What is not ready in time, or when the driver closes, must not hang: amqp091's requests know no context.
	unguard := func() bool { return true }
	defer func() { unguard() }()
	properties := amqp.NewConnectionProperties()
	properties["product"] = "bannou"
	properties.SetClientConnectionName(l.cfg.ConnectionName + "." + l.role)
	conn, err := amqp.DialConfig(url, amqp.Config{
		Heartbeat:  l.cfg.Heartbeat,
		Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			s.socket = newSocket(c)
			unguard = context.AfterFunc(ctx, func() { _ = s.socket.Close() })
			return s.socket, nil
		},
	})
	if err != nil {
		if s.socket != nil {
			_ = s.socket.Close()
		}
		return nil, errors.New(redactText(err.Error(), url))
	}
	s.conn = conn
	return l.prepare(ctx, s, url)
}

// prepare opens the channel for requests, and declares what must exist.
func (l *link) prepare(ctx context.Context, s *session, url string) (*session, error) {
	fail := func(err error) (*session, error) {
		_ = s.conn.CloseDeadline(time.Now().Add(socketFlushTimeout))
		return nil, errors.New(redactText(err.Error(), url))
	}
	admin, err := s.conn.Channel()
	if err != nil {
		return fail(err)
	}
	s.admin = admin
	if err := l.setup(ctx, s, admin); err != nil {
		return fail(err)
	}
	if ctx.Err() != nil {
		return fail(ctx.Err())
	}
	return s, nil
}

// watch follows a connection until it is gone, and returns why.
func (l *link) watch(s *session) error {
	defer close(s.gone)
	closes := s.conn.NotifyClose(make(chan *amqp.Error, 1))
	blocks := s.conn.NotifyBlocked(make(chan amqp.Blocking, 1))
	for {
		select {
		case b, ok := <-blocks:
			if !ok {
				blocks = nil
				continue
			}
			s.setBlocked(b)
			if b.Active {
				l.log.Warn("the broker takes no messages for now", "reason", b.Reason)
			} else {
				l.log.Info("the broker takes messages again")
			}
		case e := <-closes:
			s.setBlocked(amqp.Blocking{})
			if e == nil {
				return errors.New("the connection was closed")
			}
			return e
		}
	}
}

// set makes s the current connection; nil with a reason when there is none.
func (l *link) set(s *session, reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current, l.failure = s, reason
	close(l.changed)
	l.changed = make(chan struct{})
	if s != nil && l.closed { // close looked before there was something to close
		_ = s.socket.Close()
	}
}

// peek returns the current connection, or nil with the reason why there is none.
func (l *link) peek() (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current, l.failure
}

// moved returns a channel that is closed when the connection changes.
func (l *link) moved() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// wait returns the current connection, waiting for one while ctx lasts.
func (l *link) wait(ctx context.Context) (*session, error) {
	for {
		l.mu.Lock()
		s, reason, changed, closed := l.current, l.failure, l.changed, l.closed
		l.mu.Unlock()
		switch {
		case closed:
			return nil, bus.ErrClosed
		case s != nil && !s.conn.IsClosed():
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w (%s)", bus.ErrUnavailable, context.Cause(ctx), fmt.Sprint(reason))
		case <-l.ctx.Done():
			return nil, bus.ErrClosed
		}
	}
}

// do runs a request on the connection's channel for requests, one request at a time, as soon as there is a connection.
// It returns when ctx ends, even if the request cannot: amqp091's requests end only with their connection. A request
// that ended the channel is answered with the broker's *amqp.Error; errLost says that the connection went.
func (l *link) do(ctx context.Context, request func(s *session, admin *amqp.Channel) error) error {
	result := make(chan error, 1)
	if !l.background(func() { result <- l.serve(ctx, request) }) {
		return bus.ErrClosed
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
	}
	select { // the answer may have come together with the end
	case err := <-result:
		return err
	default:
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	}
}

// serve waits for its turn and runs a request.
func (l *link) serve(ctx context.Context, request func(s *session, admin *amqp.Channel) error) error {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", bus.ErrUnavailable, context.Cause(ctx))
	case <-l.ctx.Done():
		return bus.ErrClosed
	}
	s, err := l.wait(ctx)
	if err != nil {
		return err
	}
	if s.admin.IsClosed() { // an earlier request was refused, which ends a channel
		admin, err := s.conn.Channel()
		if err != nil {
			return classify(s, err)
		}
		s.admin = admin
	}
	return classify(s, request(s, s.admin))
}

// background runs f on a goroutine that close waits for. It reports false, and does not run f, after close.
func (l *link) background(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.wg.Go(f)
	return true
}

// classify tells the loss of a connection from an answer.
func classify(s *session, err error) error {
	if err == nil {
		return nil
	}
	var refused *amqp.Error
	if errors.As(err, &refused) && !s.conn.IsClosed() && isChannelError(refused.Code) {
		return err
	}
	if errors.Is(err, amqp.ErrClosed) || errors.As(err, &refused) || s.conn.IsClosed() {
		return fmt.Errorf("%w: %s", errLost, err.Error()) // its words alone: errLost is no answer of the broker
	}
	return err
}

// isChannelError reports whether a code ends the channel alone, because of what was asked on it.
func isChannelError(code int) bool {
	switch code {
	case amqp.ContentTooLarge, amqp.NoRoute, amqp.NoConsumers, amqp.AccessRefused, amqp.NotFound, amqp.ResourceLocked, amqp.PreconditionFailed:
		return true
	}
	return false
}

// answered reports whether the broker refused a request with this code.
func answered(err error, code int) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Code == code
}

// close ends the connection, politely while ctx lasts, and waits for all that runs on it.
func (l *link) close(ctx context.Context) {
	l.mu.Lock()
	l.closed = true
	s := l.current
	l.mu.Unlock()
	l.cancel()
	if s != nil {
		deadline := time.Now().Add(5 * time.Second)
		if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
			deadline = d
		}
		if err := s.conn.CloseDeadline(deadline); err != nil && !strings.Contains(err.Error(), "closed") {
			l.log.Debug("the connection did not close politely", "error", err)
		}
		_ = s.socket.Close()
	}
	l.wg.Wait()
}
