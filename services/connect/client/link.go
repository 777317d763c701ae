package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/websocket"

	"github.com/bannou-mesh/bannou/services/connect"
)

// A link is one connection.
type link struct {
	c    *Client
	conn *websocket.Conn

	resumed bool // it goes on where the one before ended

	writing sync.Mutex

	mu    sync.Mutex
	next  uint64
	calls map[uint64]chan reply // nil: the connection is lost
}

type reply struct {
	response connect.Response
	err      error
}

// A message is what the gateway sends as text.
type message struct {
	Hello *struct {
		SessionID      string `json:"sessionId"`
		AccountID      string `json:"accountId"`
		InstanceID     string `json:"instanceId"`
		Resumed        bool   `json:"resumed"`
		ReconnectToken string `json:"reconnectToken"`
		Window         int    `json:"window"`
		PingSeconds    int    `json:"pingSeconds"`
	} `json:"hello"`
	Manifest *struct {
		Version   int64      `json:"version"`
		Endpoints []Endpoint `json:"endpoints"`
	} `json:"manifest"`
	Event *struct {
		Sequence uint32         `json:"seq"`
		Name     string         `json:"name"`
		ID       string         `json:"id"`
		Type     string         `json:"type"`
		Body     jsontext.Value `json:"body"`
	} `json:"event"`
}

// hello reads the first message.
func (l *link) hello(ctx context.Context) error {
	deadline, bounded := ctx.Deadline()
	if !bounded {
		deadline = time.Now().Add(10 * time.Second)
	}
	_ = l.conn.SetReadDeadline(deadline)
	_, data, err := l.conn.ReadMessage()
	if err != nil {
		return err
	}
	_ = l.conn.SetReadDeadline(time.Time{})
	var m message
	if err := json.Unmarshal(data, &m); err != nil || m.Hello == nil {
		return fmt.Errorf("the gateway does not say hello: %w", err)
	}
	patience := 3 * time.Duration(max(m.Hello.PingSeconds, 1)) * time.Second
	_ = l.conn.SetReadDeadline(time.Now().Add(patience))
	l.conn.SetPingHandler(func(data string) error {
		_ = l.conn.SetReadDeadline(time.Now().Add(patience))
		return l.conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
	})
	l.resumed = m.Hello.Resumed
	c := l.c
	c.inbox.restart(l, m.Hello.Window)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link, c.sessionID, c.accountID, c.instance, c.reconnect = l, m.Hello.SessionID, m.Hello.AccountID, m.Hello.InstanceID, m.Hello.ReconnectToken
	c.version = 0 // the manifest of this connection is to come
	c.stir()
	return nil
}

// read takes messages until the connection ends.
func (l *link) read() error {
	for {
		kind, data, err := l.conn.ReadMessage()
		if err != nil {
			return err
		}
		if kind == websocket.BinaryMessage {
			response, err := connect.ParseResponse(data)
			if err != nil {
				return err
			}
			l.answer(response.MessageID, reply{response: response})
			continue
		}
		var m message
		if err := json.Unmarshal(data, &m); err != nil {
			return err
		}
		switch {
		case m.Manifest != nil:
			l.c.learn(m.Manifest.Version, m.Manifest.Endpoints)
		case m.Event != nil:
			l.c.inbox.put(l, m.Event.Sequence, Event{Name: m.Event.Name, ID: m.Event.ID, Type: m.Event.Type, Body: m.Event.Body})
		}
	}
}

func (c *Client) learn(version int64, endpoints []Endpoint) {
	manifest := make(map[string]Endpoint, len(endpoints))
	for _, e := range endpoints {
		manifest[e.Method+" "+e.Path] = e
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.manifest, c.version = manifest, version
	c.stir()
}

func (l *link) answer(id uint64, r reply) {
	l.mu.Lock()
	waiting := l.calls[id]
	delete(l.calls, id)
	l.mu.Unlock()
	if waiting != nil {
		waiting <- r
	}
}

// lost ends all calls that are under way.
func (l *link) lost() {
	l.mu.Lock()
	calls := l.calls
	l.calls = nil
	l.mu.Unlock()
	for _, waiting := range calls {
		waiting <- reply{err: ErrLost}
	}
	_ = l.conn.Close()
}

// close says goodbye.
func (l *link) close() {
	_ = l.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	_ = l.conn.SetReadDeadline(time.Now().Add(time.Second))
}

func (l *link) write(kind int, frame []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	return l.conn.WriteMessage(kind, frame)
}

// A Response is what comes of a call. Any is an answer, not an error.
type Response struct {
	Code connect.Code
	Body []byte
}

// Call calls an endpoint with a body of JSON, and waits for its answer. It waits for a connection, if there is none, as long as ctx lasts.
// ErrNotAllowed, ErrLost.
func (c *Client) Call(ctx context.Context, method, path string, body []byte) (Response, error) {
	return c.CallOn(ctx, 0, method, path, body)
}

// CallOn is Call on a channel: calls of one channel are carried out one after another, in their order; those of channel 0 side by side.
func (c *Client) CallOn(ctx context.Context, channel uint16, method, path string, body []byte) (Response, error) {
	for {
		c.mu.Lock()
		l, changed, known := c.link, c.changed, c.version > 0
		e, allowed := c.manifest[method+" "+path]
		c.mu.Unlock()
		switch {
		case l == nil || !known:
			select {
			case <-changed:
				continue
			case <-c.done:
				return Response{}, c.ended()
			case <-ctx.Done():
				return Response{}, context.Cause(ctx)
			}
		case !allowed:
			return Response{}, fmt.Errorf("%w: %s %s", ErrNotAllowed, method, path)
		}
		r, err := l.call(ctx, connect.Request{Channel: channel, Endpoint: e.GUID, Payload: body})
		if errors.Is(err, errUnsent) {
			continue
		}
		return r, err
	}
}

// errUnsent reports a call that the connection was lost before.
var errUnsent = errors.New("the call was not sent")

func (l *link) call(ctx context.Context, r connect.Request) (Response, error) {
	answered := make(chan reply, 1)
	l.mu.Lock()
	if l.calls == nil {
		l.mu.Unlock()
		select { // the client hears of it in a moment
		case <-l.c.changedFrom(l):
		case <-ctx.Done():
			return Response{}, context.Cause(ctx)
		}
		return Response{}, errUnsent
	}
	l.next++
	r.MessageID, r.Sequence = l.next, uint32(l.next)
	l.calls[r.MessageID] = answered
	l.mu.Unlock()
	if err := l.write(websocket.BinaryMessage, r.Append(make([]byte, 0, connect.RequestHeaderBytes+len(r.Payload)))); err != nil {
		_ = l.conn.Close() // the reader tells
	}
	select {
	case a := <-answered:
		return Response{Code: a.response.Code, Body: a.response.Payload}, a.err
	case <-ctx.Done():
		l.mu.Lock()
		delete(l.calls, r.MessageID)
		l.mu.Unlock()
		return Response{}, context.Cause(ctx)
	}
}

// changedFrom is closed when a connection is not the client's any more.
func (c *Client) changedFrom(l *link) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != l {
		gone := make(chan struct{})
		close(gone)
		return gone
	}
	return c.changed
}
