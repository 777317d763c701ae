package connect

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/bannou-mesh/bannou/events"
	"github.com/bannou-mesh/bannou/pkg/bus"
	"github.com/bannou-mesh/bannou/services/problem"
)

// readBufferBytes is what an idle connection holds; longer messages are read in several steps.
const readBufferBytes = 512

// upgrader makes connections. Compression is off: it takes a window of memory for each. Any origin is let in: a browser sends no
// credentials of its own here, and a page of another origin has no token to show.
func upgrader(pool *sync.Pool) *websocket.Upgrader {
	return &websocket.Upgrader{
		ReadBufferSize: readBufferBytes, WriteBufferSize: 4096, WriteBufferPool: pool, Subprotocols: []string{Subprotocol},
		CheckOrigin: func(*http.Request) bool { return true },
	}
}

// hijackable lets the library reach the connection below a writer that wraps it.
type hijackable struct{ http.ResponseWriter }

func (h hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(h.ResponseWriter).Hijack()
}

// connect is GET /connect.
func (s *Service) connect(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.cfg.HandshakeTimeout)
	defer cancel()
	v, greeting, err := s.admit(ctx, r)
	if err != nil {
		p := handshakeProblem(err)
		s.meter.handshake(ctx, outcomeOf(p))
		problem.Write(w, p)
		return
	}
	conn, err := s.upgrader.Upgrade(hijackable{w}, r, nil)
	if err != nil { // the library has answered
		s.meter.handshake(ctx, "failed")
		s.abandon(ctx, v)
		return
	}
	if !v.attach(conn) {
		e := v.why()
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(e.code, e.reason), time.Now().Add(goodbye))
		_ = conn.Close()
		s.abandon(ctx, v)
		return
	}
	v.greet(greeting)
	s.background.Go(v.deliver)
	s.tellConnected(ctx, v, greeting.Resumed) // before anybody tells of its end
	s.background.Go(v.run)
}

// admit finds whose the connection is, and makes it the session's only one: in the record first, then here, then at its queue.
func (s *Service) admit(ctx context.Context, r *http.Request) (*session, hello, error) {
	if full, closed := s.held.full(); closed || !s.listening.Load() {
		return nil, hello{}, problem.New(problem.Unavailable, "this node takes no connections now; connect to another")
	} else if full {
		return nil, hello{}, errFull
	}
	if !websocket.IsWebSocketUpgrade(r) {
		return nil, hello{}, problem.New(problem.Unsupported, "/connect is for WebSockets: send Connection: Upgrade and Upgrade: websocket")
	}
	acks := r.URL.Query().Get("ack")
	if acks != "" && acks != "auto" {
		return nil, hello{}, problem.New(problem.Unsupported, "the parameter ack is %.20q: leave it out to acknowledge events, or choose auto", acks)
	}
	shown, err := credentialsOf(r)
	if err != nil {
		return nil, hello{}, err
	}
	taken, err := s.take(ctx, shown)
	if err != nil {
		return nil, hello{}, err
	}
	v := s.newSession(taken.sessionID)
	v.record, v.autoAck, v.before = taken.now, acks == "auto", taken.before
	v.record.Bare = false // as it is kept once the queue stands
	if err := s.settle(ctx, v); err != nil {
		s.abandon(ctx, v)
		return nil, hello{}, err
	}
	return v, hello{
		SessionID: v.id, AccountID: v.record.AccountID, InstanceID: s.cfg.InstanceID, Resumed: v.resumes(), ReconnectToken: taken.token,
		ReconnectWithinSeconds: int(s.cfg.ReconnectWithin.Seconds()), PingSeconds: int(s.cfg.PingInterval.Seconds()),
		MaxMessageBytes: s.cfg.MaxMessageBytes, MaxCalls: s.cfg.MaxCalls, Window: s.cfg.Window,
	}, nil
}

var errFull = errors.New("the node is full")

// A taking is a session whose record this node has just written.
type taking struct {
	sessionID   string
	before, now record
	token       string // for the next time
}

// take makes the connection the session's own in its record, if what it shows holds.
func (s *Service) take(ctx context.Context, shown credentials) (t taking, err error) {
	var kept digest
	now := s.cfg.Now().UTC()
	if shown.access != "" {
		login, err := s.cfg.Auth.Validate(ctx, shown.access)
		if err != nil {
			return t, err
		}
		t.sessionID = login.SessionID
		t.token, kept = newReconnectToken(t.sessionID)
		t.before, t.now, err = s.records.change(ctx, t.sessionID, s.cfg.recordLife(), func(v *record, _ bool) error {
			if v.Ended {
				return ErrNoSession
			}
			if v.AccountID != login.AccountID || len(v.Salt) != saltBytes {
				v.AccountID, v.Salt = login.AccountID, newSalt()
			}
			v.Bare = v.Bare || v.Lost || v.Epoch == 0
			if v.Epoch == 0 { // where a store has lost the record, the clock says where they go on, above those that were
				v.Epoch = now.UnixMicro()
			}
			if v.Lost {
				v.Lost, v.Anew = false, v.Anew+1
			}
			v.Roles, v.Until, v.Ends = login.Roles, now.Add(s.cfg.TokenLife), login.SessionExpiresAt
			if !v.Ends.IsZero() && v.Ends.Before(v.Until) {
				v.Until = v.Ends
			}
			v.InstanceID, v.Epoch, v.Token = s.cfg.InstanceID, v.Epoch+1, kept[:]
			return nil
		})
		return t, err
	}
	sessionID, used, ok := parseReconnectToken(shown.reconnect)
	if !ok {
		return t, errRefused
	}
	t.sessionID = sessionID
	t.token, kept = newReconnectToken(sessionID)
	t.before, t.now, err = s.records.change(ctx, sessionID, s.cfg.recordLife(), func(v *record, found bool) error {
		if !found || v.Ended || v.Lost || len(v.Token) != len(used) || !used.is(digest(v.Token)) || !now.Before(v.Until) {
			return errRefused
		}
		v.InstanceID, v.Epoch, v.Token = s.cfg.InstanceID, v.Epoch+1, kept[:]
		return nil
	})
	return t, err
}

// settle gives the connection its place here, in that of the session's other one, and its events.
func (s *Service) settle(ctx context.Context, v *session) error {
	before, ok := s.held.add(v)
	switch {
	case !ok && before != nil: // the record says whether that one is newer, or of a time before the store lost its memory
		return errors.Join(errReplaced, s.look(ctx, before))
	case !ok:
		return errFull
	case before != nil:
		before.close(before.replacedBy(v.record))
		select {
		case <-before.gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if v.before.Lost { // what waits there is given up, and nobody reads it any more
		if err := s.cfg.Broker.DeleteQueue(ctx, queueName(v.id, v.before.Anew)); err != nil {
			return err
		}
	}
	if err := s.open(ctx, v); err != nil {
		return err
	}
	// What ended the session after its record was written, and before it was held here, has gone by unnoticed.
	return s.records.stands(ctx, v.id, v.record, s.cfg.recordLife())
}

// open begins to read the session's queue. One that a node with other limits has made is made anew: the broker changes none.
func (s *Service) open(ctx context.Context, v *session) error {
	q := bus.Queue{
		Name: queueName(v.id, v.record.Anew), Bindings: []bus.Binding{{Pattern: "session." + v.id + ".*"}}, Durable: true, Expires: s.cfg.recordLife(), Prefetch: s.cfg.Window,
		MaxMessages: s.cfg.MaxWaitingEvents, MaxBytes: s.cfg.MaxWaitingBytes, Overflow: overflowQueue,
	}
	var err error
	if v.consumer, err = s.cfg.Broker.Subscribe(ctx, q); !errors.Is(err, bus.ErrInvalid) {
		return err
	}
	if err := s.records.bare(ctx, v.id, v.record, s.cfg.recordLife()); err != nil { // for who comes after this node, if it dies now
		return err
	}
	if gone := s.cfg.Broker.DeleteQueue(ctx, q.Name); gone != nil {
		return errors.Join(err, gone)
	}
	v.emptied = true // where it was done and the answer is missing, the record's "bare" tells the next one
	v.consumer, err = s.cfg.Broker.Subscribe(ctx, q)
	return err
}

// resumes reports whether the connection goes on where the session's one before it has ended.
func (v *session) resumes() bool { return v.before.goesOn() && !v.emptied }

// abandon undoes what was begun for a connection that did not come about. The token that it showed holds again, and the session waits for its
// client, if it had a connection before.
func (s *Service) abandon(ctx context.Context, v *session) {
	v.close(away(0, "", events.SessionDisconnectedReasonError))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.HandshakeTimeout)
	defer cancel()
	defer close(v.gone)
	v.returnEvents()
	s.held.remove(v)
	_, _, err := s.records.change(ctx, v.id, s.cfg.ReconnectWithin, func(now *record, found bool) error {
		if !found || now.Ended || now.Epoch != v.record.Epoch {
			return errReplaced
		}
		now.Token, now.Until = v.before.Token, v.before.Until
		now.Lost = v.emptied || v.before.Lost || v.before.Epoch == 0
		return nil
	})
	if err == nil && v.before.Epoch > 0 && !v.before.Lost { // a connection before it was closed for it, which told nobody
		if !v.emptied {
			s.await(v)
		}
		s.tellDisconnected(ctx, v, events.SessionDisconnectedReasonError, !v.emptied)
	}
	if err != nil && !errors.Is(err, errReplaced) {
		s.cfg.Logger.DebugContext(ctx, "a reconnection token was used for nothing", slog.String("session", v.id), slog.Any("error", err))
	}
}

// tellConnected tells of a connection whose events arrive.
func (s *Service) tellConnected(ctx context.Context, v *session, resumed bool) {
	o := bus.PublishOptions{PartitionKey: v.id}
	var err error
	if resumed {
		s.meter.handshake(ctx, "resumed")
		_, err = s.cfg.Bus.PublishWith(ctx, events.TopicSessionReconnected, &events.SessionReconnectedEvent{
			SessionID: v.id, AccountID: v.record.AccountID, InstanceID: s.cfg.InstanceID, PreviousInstanceID: v.before.InstanceID,
		}, o)
	} else {
		s.meter.handshake(ctx, "connected")
		_, err = s.cfg.Bus.PublishWith(ctx, events.TopicSessionConnected, &events.SessionConnectedEvent{
			SessionID: v.id, AccountID: v.record.AccountID, InstanceID: s.cfg.InstanceID, Roles: v.record.Roles,
		}, o)
	}
	if err != nil { // it would get no manifest
		s.cfg.Logger.WarnContext(ctx, "a client has connected, and others could not be told", slog.String("session", v.id), slog.Any("error", err))
		v.close(away(CloseTryAgain, "the node cannot tell others of you: reconnect", events.SessionDisconnectedReasonError))
	}
}

// handshakeProblem is why there is no connection.
func handshakeProblem(err error) *problem.Problem {
	if p, is := errors.AsType[*problem.Problem](err); is {
		return p
	}
	switch {
	case errors.Is(err, ErrNoSession), errors.Is(err, errEnded):
		return unauthorized("the access token is expired, forged, or of a session that has ended")
	case errors.Is(err, errRefused):
		return unauthorized("the reconnection token was used before, is too old, or of a session that has ended; show an access token")
	case errors.Is(err, errReplaced):
		return problem.New(problem.Conflict, "the session was connected elsewhere at the same time").Because(err)
	case errors.Is(err, errLost):
		return problem.New(problem.Conflict, "more events waited for the session than are kept, and are gone: connect again, with an access token").Because(err)
	case errors.Is(err, errFull):
		return problem.New(problem.Overloaded, "this node has as many connections as it takes; connect to another").Because(err)
	default:
		return problem.New(problem.Unavailable, "the store, the bus or the auth service is away; try again").Because(err)
	}
}

func outcomeOf(p *problem.Problem) string {
	switch p.Code {
	case problem.Unauthorized:
		return "unauthorized"
	case problem.Overloaded:
		return "full"
	default:
		return "failed"
	}
}
